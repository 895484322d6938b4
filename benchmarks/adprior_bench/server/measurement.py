"""Measures a scenario: rounds of loads on the server, and the engine in-process before and after.

A load is compared with the mean of the in-process runs before and after its round. So a machine
that slowly changes its speed changes both sides of a ratio. Rows are medians over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_bench.server.counters import Counters
from adprior_bench.server.in_process import InProcessRate, Worker, measure_workers
from adprior_bench.server.load import Load, LoadResult, Mode, run_load
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.running_server import RunningServer
from adprior_bench.server.scenarios import MODELS, Scenario

Row = Mapping[str, Any]

ROW_KEYS: Final = (
    "scenario", "mode", "concurrency_or_rate", "throughput", "p50_ms", "p95_ms", "p99_ms",
    "errors", "in_process_throughput", "served_over_in_process", "cpu_s_per_request",
    "in_process_cpu_s_per_request", "cpu_over_in_process", "share_of_saturation", "requests",
    "ranges", "cpu_s_by_process", "step_ms", "batch_size", "generator_cpu_s_per_request",
    "without_figures", "problem",
)  # fmt: skip
"""The keys of every row; a value is null where it does not apply.

Values are medians over the rounds; ``requests`` and ``errors`` are sums. ``errors`` counts
requests that the server failed. ``without_figures`` counts rounds in which perf_analyzer gave up;
``problem`` is the first reason. ``ranges`` has the lowest and the highest round, ``step_ms`` the
milliseconds of a request in each model's steps, ``batch_size`` the mean size of a model's batches.
"""

_RANGED: Final = (
    "throughput", "p50_ms", "p95_ms", "p99_ms", "served_over_in_process", "cpu_s_per_request",
    "cpu_over_in_process",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The loads to measure.

    Attributes:
        concurrencies: Requests in flight of the closed loops.
        shares: Rates of the open loops, as shares of the saturation throughput.
        seconds: Duration of each load, and of each in-process run.
        rounds: Measurements of each load.
        users: Number of different requests.
    """

    concurrencies: Sequence[int]
    shares: Sequence[float]
    seconds: float
    rounds: int
    users: int

    def loads(self) -> int:
        """Return the number of loads of a scenario."""
        return self.rounds * (len(self.concurrencies) + len(self.shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One load of one round."""

    result: LoadResult
    counters: Counters
    in_process: InProcessRate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The server under test, and what it is measured with.

    Attributes:
        analyzer: Sends requests.
        server: Answers them.
        workers: The engine in-process; empty if it is not measured.
        input_data: Returns perf_analyzer's input file for a scenario.
        progress: Called after each load.
    """

    analyzer: PerfAnalyzer
    server: RunningServer
    workers: Sequence[Worker]
    input_data: Callable[[Scenario], Path]
    progress: Callable[[], Any]

    def measure_scenario(self, scenario: Scenario, plan: Plan) -> list[dict[str, Any]]:
        """Return a scenario's rows: closed loops, then open loops at shares of their best."""
        before = self._measure_in_process(scenario, plan.seconds)
        loads = [_load(scenario, Mode.CLOSED, value, plan) for value in plan.concurrencies]
        closed, before = self._measure_rounds(scenario, loads, plan.rounds, before)
        rows = [
            make_row(scenario, load, samples) for load, samples in zip(loads, closed, strict=True)
        ]
        best = saturated_row(rows, scenario)
        if best is None:
            return rows
        rates = [share * best["throughput"] for share in plan.shares]
        loads = [_load(scenario, Mode.OPEN, rate, plan) for rate in rates]
        opened, _ = self._measure_rounds(scenario, loads, plan.rounds, before)
        for share, load, samples in zip(plan.shares, loads, opened, strict=True):
            rows.append(make_row(scenario, load, samples) | {"share_of_saturation": share})
        return rows

    def _measure_rounds(
        self,
        scenario: Scenario,
        loads: Sequence[Load],
        rounds: int,
        before: InProcessRate | None,
    ) -> tuple[list[list[_Sample]], InProcessRate | None]:
        """Return the samples of each load, one a round; and the last in-process run."""
        found: list[list[_Sample]] = [[] for _ in loads]
        for _ in range(rounds):
            measured = [self._measure_load(scenario, load) for load in loads]
            after = self._measure_in_process(scenario, loads[0].seconds)
            for samples, (result, counters) in zip(found, measured, strict=True):
                in_process = _mean(before, after)
                samples.append(_Sample(result=result, counters=counters, in_process=in_process))
            before = after
        return found, before

    def _measure_load(self, scenario: Scenario, load: Load) -> tuple[LoadResult, Counters]:
        earlier = self.server.read_counters()
        result = run_load(self.analyzer, self.server.connection, self.input_data(scenario), load)
        counters = self.server.read_counters().since(earlier)
        self.progress()
        return result, counters

    def _measure_in_process(self, scenario: Scenario, seconds: float) -> InProcessRate | None:
        return measure_workers(self.workers, scenario, seconds) if self.workers else None


def saturated_row(rows: Iterable[Row], scenario: Scenario) -> Row | None:
    """Return a scenario's closed loop with the highest throughput; None if all failed."""
    closed = [
        row
        for row in rows
        if row["scenario"] == scenario and row["mode"] == Mode.CLOSED and row["throughput"]
    ]
    return max(closed, key=lambda row: row["throughput"], default=None)


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _load(scenario: Scenario, mode: Mode, value: float, plan: Plan) -> Load:
    return Load(model=MODELS[scenario], mode=mode, value=value, seconds=plan.seconds)


def _mean(first: InProcessRate | None, second: InProcessRate | None) -> InProcessRate | None:
    if first is None or second is None:
        return None
    return InProcessRate(
        throughput=(first.throughput + second.throughput) / 2,
        cpu_s_per_request=(first.cpu_s_per_request + second.cpu_s_per_request) / 2,
    )


def make_row(scenario: Scenario, load: Load, samples: Sequence[_Sample]) -> dict[str, Any]:
    """Return the row of a load from its samples, one a round."""
    figures = [_figures(sample, load.model) for sample in samples]
    counters = [sample.counters for sample in samples]
    problems = [sample.result.problem for sample in samples if sample.result.problem]
    row = dict.fromkeys(ROW_KEYS) | {
        "scenario": str(scenario),
        "mode": str(load.mode),
        "concurrency_or_rate": load.value,
        **{key: median(each[key] for each in figures) for key in figures[0]},
        "requests": sum(sample.result.requests for sample in samples),
        "errors": sum(each.models[load.model].failures for each in counters),
        "without_figures": len(problems),
        "problem": problems[0] if problems else None,
        "ranges": {key: _range(each[key] for each in figures) for key in _RANGED},
        "cpu_s_by_process": _median_of_each(
            [each.cpu_s_per_request(load.model) or {} for each in counters]
        ),
    }
    used = [name for name, work in counters[0].models.items() if work.requests and work.executions]
    row["step_ms"] = {
        name: _median_of_each([each.models[name].step_ms() for each in counters]) for name in used
    }
    row["batch_size"] = {
        name: sum(each.models[name].requests for each in counters)
        / max(sum(each.models[name].executions for each in counters), 1)
        for name in used
    }
    return row


def _figures(sample: _Sample, model: str) -> dict[str, float | None]:
    result, in_process = sample.result, sample.in_process
    by_process = sample.counters.cpu_s_per_request(model)
    cpu_s = None if by_process is None else sum(by_process.values())
    throughput = None if in_process is None else in_process.throughput
    in_process_cpu_s = None if in_process is None else in_process.cpu_s_per_request
    return {
        "throughput": result.throughput,
        "p50_ms": result.p50_ms,
        "p95_ms": result.p95_ms,
        "p99_ms": result.p99_ms,
        "in_process_throughput": throughput,
        "served_over_in_process": _ratio(result.throughput, throughput),
        "cpu_s_per_request": cpu_s,
        "in_process_cpu_s_per_request": in_process_cpu_s,
        "cpu_over_in_process": _ratio(cpu_s, in_process_cpu_s),
        "generator_cpu_s_per_request": _ratio(
            result.generator_cpu_s, sample.counters.models[model].requests
        ),
    }


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def _median_of_each(found: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    return {key: median(each.get(key) for each in found) for key in found[0]}


def _range(values: Iterable[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None
