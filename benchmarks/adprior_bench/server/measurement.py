"""Rounds of loads, and the engine in-process beside them; medians over the rounds become rows.

The engine in-process, each load on the server, the engine in-process again, and so on: what the
two ends of a round show is averaged, so that a machine that slowly changes its speed changes both
sides of a ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_bench.server.in_process import InProcessRate, InProcessWorkers
from adprior_bench.server.load import Load, LoadResult, Mode, run_load
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.scenarios import MODELS, Scenario
from adprior_bench.server.server_work import Server, ServerWork

ROW_KEYS: Final = (
    "scenario", "mode", "concurrency_or_rate", "throughput", "p50_ms", "p95_ms", "p99_ms",
    "errors", "in_process_throughput", "served_over_in_process", "cpu_s_per_request",
    "in_process_cpu_s_per_request", "cpu_over_in_process", "share_of_saturation", "requests",
    "ranges", "cpu_s_by_process", "step_ms", "batch_size", "generator_cpu_s_per_request",
    "without_figures", "problem",
)  # fmt: skip
"""Every row has all of them, null where one does not apply.

Medians over the rounds; ``requests`` and ``errors`` are sums. ``errors`` are requests that the
server failed; ``without_figures`` counts rounds in which perf_analyzer gave up, and ``problem``
says why the first time. ``ranges`` has the least and the most of a round, ``step_ms`` the time of a
request in each model's steps, ``batch_size`` the requests that a model was given at once.
"""

_RANGED: Final = (
    "throughput", "p50_ms", "p95_ms", "p99_ms", "served_over_in_process", "cpu_s_per_request",
    "cpu_over_in_process",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        concurrencies: Requests in flight, of the closed loops.
        shares: Of the saturation throughput, the rates of the open loops.
        seconds: Of each load, and of each time in-process.
        rounds: How often each is measured.
        users: Different requests.
    """

    concurrencies: Sequence[int]
    shares: Sequence[float]
    seconds: float
    rounds: int
    users: int

    def loads(self) -> int:
        """Return how many loads a scenario takes."""
        return self.rounds * (len(self.concurrencies) + len(self.shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What measures, and what is measured.

    Attributes:
        analyzer: Sends requests.
        server: Answers them.
        workers: The engine in-process; None where there is none.
        input_data: What perf_analyzer sends in each scenario.
        progress: Called after each load.
    """

    analyzer: PerfAnalyzer
    server: Server
    workers: InProcessWorkers | None
    input_data: Callable[[Scenario], Path]
    progress: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One load of one round."""

    result: LoadResult
    work: ServerWork
    in_process: InProcessRate | None


def measure_scenario(bench: Bench, scenario: Scenario, plan: Plan) -> list[dict[str, Any]]:
    """Return a scenario's rows: closed loops, then open loops at shares of their best."""
    beside = _in_process(bench, scenario, plan.seconds)
    closed, beside = _measure_loads(bench, scenario, Mode.CLOSED, plan.concurrencies, plan, beside)
    rows = [
        _row(scenario, Mode.CLOSED, value, samples)
        for value, samples in zip(plan.concurrencies, closed, strict=True)
    ]
    best = saturated_row(rows, scenario)
    if best is None:
        return rows
    rates = [share * best["throughput"] for share in plan.shares]
    opened, _ = _measure_loads(bench, scenario, Mode.OPEN, rates, plan, beside)
    for share, rate, samples in zip(plan.shares, rates, opened, strict=True):
        rows.append(_row(scenario, Mode.OPEN, rate, samples) | {"share_of_saturation": share})
    return rows


def saturated_row(
    rows: Iterable[Mapping[str, Any]], scenario: Scenario
) -> Mapping[str, Any] | None:
    """Return the closed loop with a scenario's highest throughput, None where all failed."""
    closed = [
        row
        for row in rows
        if row["scenario"] == scenario and row["mode"] == Mode.CLOSED and row["throughput"]
    ]
    return max(closed, key=lambda row: row["throughput"], default=None)


def _measure_loads(
    bench: Bench,
    scenario: Scenario,
    mode: Mode,
    values: Sequence[float],
    plan: Plan,
    before: InProcessRate | None,
) -> tuple[list[list[_Sample]], InProcessRate | None]:
    """Return, for each value, a sample of each round; and what the engine did in-process last.

    Args:
        bench: What measures.
        scenario: What is asked.
        mode: How.
        values: Of the loads of a round.
        plan: Seconds and rounds.
        before: What the engine did in-process just before.
    """
    input_data = bench.input_data(scenario)
    found: list[list[_Sample]] = [[] for _ in values]
    for _ in range(plan.rounds):
        done = []
        for value in values:
            load = Load(model=MODELS[scenario], mode=mode, value=value, seconds=plan.seconds)
            earlier = bench.server.snapshot()
            result = run_load(bench.analyzer, bench.server.connection, input_data, load)
            done.append((result, bench.server.snapshot().since(earlier)))
            bench.progress()
        after = _in_process(bench, scenario, plan.seconds)
        for samples, (result, work) in zip(found, done, strict=True):
            samples.append(_Sample(result=result, work=work, in_process=_mean(before, after)))
        before = after
    return found, before


def _in_process(bench: Bench, scenario: Scenario, seconds: float) -> InProcessRate | None:
    return None if bench.workers is None else bench.workers.measure(scenario, seconds)


def _mean(first: InProcessRate | None, second: InProcessRate | None) -> InProcessRate | None:
    if first is None or second is None:
        return None
    return InProcessRate(
        throughput=(first.throughput + second.throughput) / 2,
        cpu_s_per_request=(first.cpu_s_per_request + second.cpu_s_per_request) / 2,
    )


def _row(
    scenario: Scenario, mode: Mode, value: float, samples: Sequence[_Sample]
) -> dict[str, Any]:
    model = MODELS[scenario]
    figures = [_figures(sample, model) for sample in samples]
    row: dict[str, Any] = dict.fromkeys(ROW_KEYS)
    row |= {"scenario": str(scenario), "mode": str(mode), "concurrency_or_rate": value}
    row |= {key: _median(each[key] for each in figures) for key in figures[0]}
    row["requests"] = sum(sample.result.requests for sample in samples)
    row["errors"] = sum(sample.work.models[model].failures for sample in samples)
    row["without_figures"] = sum(bool(sample.result.problem) for sample in samples)
    row["problem"] = next((s.result.problem for s in samples if s.result.problem), None)
    row["ranges"] = {key: _range(each[key] for each in figures) for key in _RANGED}
    per_process = [sample.work.cpu_s_per_request(model) or {} for sample in samples]
    row["cpu_s_by_process"] = {
        name: _median(each.get(name) for each in per_process) for name in per_process[0]
    }
    used = {
        name: [sample.work.models[name] for sample in samples]
        for name, work in samples[0].work.models.items()
        if work.requests and work.executions
    }
    row["step_ms"] = {
        name: {
            step: statistics.median(each.step_ms()[step] for each in works)
            for step in works[0].step_ms()
        }
        for name, works in used.items()
    }
    row["batch_size"] = {
        name: sum(each.requests for each in works) / max(sum(e.executions for e in works), 1)
        for name, works in used.items()
    }
    return row


def _figures(sample: _Sample, model: str) -> dict[str, float | None]:
    result = sample.result
    beside = sample.in_process
    beside_throughput = None if beside is None else beside.throughput
    beside_cpu_s = None if beside is None else beside.cpu_s_per_request
    by_process = sample.work.cpu_s_per_request(model)
    cpu_s = None if by_process is None else sum(by_process.values())
    served = sample.work.models[model].requests
    return {
        "throughput": result.throughput,
        "p50_ms": result.p50_ms,
        "p95_ms": result.p95_ms,
        "p99_ms": result.p99_ms,
        "in_process_throughput": beside_throughput,
        "served_over_in_process": _ratio(result.throughput, beside_throughput),
        "cpu_s_per_request": cpu_s,
        "in_process_cpu_s_per_request": beside_cpu_s,
        "cpu_over_in_process": _ratio(cpu_s, beside_cpu_s),
        "generator_cpu_s_per_request": result.generator_cpu_s / served if served else None,
    }


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _range(values: Iterable[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None
