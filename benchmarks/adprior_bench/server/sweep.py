"""Tries instances, threads and batching of the embedded server, and recommends one setting.

Two steps: ways to share the CPUs between engines, then ways to batch with the best of these. Each
setting has its own server. The best throughput of its closed loops is its saturation; its p99 is
measured at 70 % of that, with Poisson arrivals. A round measures every setting of a step once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from adprior_bench.report.terminal import figures_table
from adprior_bench.server.load import Mode
from adprior_bench.server.machine import describe_machine
from adprior_bench.server.measurement import Bench, Plan, Row, median, saturated_row
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.running_server import build_repository, start_server
from adprior_bench.server.scenarios import Scenario, write_input_data
from adprior_bench.server.workload import UserRequest
from adprior_runtime.contract import LLM_ENGINE, MAX_BATCH_SIZE, MAX_QUEUE_DELAY_US, Target
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.repository.model_specs import ModelTuning, model
from adprior_runtime.repository.tuning import TUNED_MODELS, Tuning, format_tuning

SCENARIO: Final = Scenario.LIVE_RANKING
"""Settings are compared on live rankings, which go through every model."""

_SHARE: Final = 0.7
"""The p99 is measured at this share of a setting's own saturation."""

_ALIKE: Final = 0.03
"""Throughputs that differ by less count as equal: the lower p99 decides."""

Rows = Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting and its figures.

    Attributes:
        tuning: The setting, for every model that can be tuned.
        throughput: Requests a second at saturation; 0 if every load failed.
        p50_ms: Median latency of the closed loop with the fewest requests in flight.
        p99_ms: 99th percentile of the latency at 70 % of the saturation.
        cpu_s_per_request: CPU seconds of the whole server, at saturation.
        errors: Requests that the server failed, in all loads.
        without_figures: Loads in which perf_analyzer gave up.
        problem: The first reason for that, if any.
    """

    tuning: Tuning
    throughput: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_s_per_request: float | None
    errors: int
    without_figures: int = 0
    problem: str | None = None

    @classmethod
    def of(cls, tuning: Tuning, rounds: Sequence[Rows]) -> Trial:
        """Return the trial of a setting: medians over its rounds, sums of errors."""
        best = [saturated_row(rows, SCENARIO) or {} for rows in rounds]
        found = [row for rows in rounds for row in rows]
        closed = [row for row in found if row["mode"] == Mode.CLOSED]
        fewest = min((row["concurrency_or_rate"] for row in closed), default=None)
        return cls(
            tuning=tuning,
            throughput=median(row.get("throughput") for row in best) or 0.0,
            p50_ms=median(r["p50_ms"] for r in closed if r["concurrency_or_rate"] == fewest),
            p99_ms=median(row["p99_ms"] for row in found if row["mode"] == Mode.OPEN),
            cpu_s_per_request=median(row.get("cpu_s_per_request") for row in best),
            errors=sum(row["errors"] for row in found),
            without_figures=sum(row["without_figures"] for row in found),
            problem=next((row["problem"] for row in found if row["problem"]), None),
        )

    def row(self) -> dict[str, Any]:
        """Return the trial as a row of the table and of ``--json``."""
        engine = self.tuning[LLM_ENGINE]
        figures = asdict(self)
        del figures["tuning"]
        return {
            "engines": engine.instances,
            "threads": engine.threads,
            "max_batch_size": engine.max_batch_size,
            "max_queue_delay_us": engine.max_queue_delay_us,
            **figures,
        }


def run_sweep(
    bundle: Path,
    requests: Iterable[UserRequest],
    analyzer: PerfAnalyzer,
    plan: Plan,
    scratch: Path,
    p99_limit_ms: float | None,
) -> tuple[list[Trial], Trial]:
    """Try settings on this machine; return all trials, and the recommended one."""
    numbers = itertools.count()
    input_data = scratch / "sweep.json"
    write_input_data(input_data, SCENARIO, requests)
    once = replace(plan, rounds=1, shares=[_SHARE])
    with tqdm(unit="server", desc="sweep", leave=False, disable=None) as progress:

        def measure(tuning: Tuning) -> Rows:
            repository = build_repository(bundle, scratch / f"sweep-{next(numbers)}", tuning)
            progress.update()
            with start_server(repository) as server:
                bench = Bench(
                    analyzer=analyzer,
                    server=server,
                    workers=(),
                    input_data=lambda _: input_data,
                    progress=lambda: None,
                )
                return bench.measure_scenario(SCENARIO, once)

        return sweep(available_processors(), plan.rounds, measure, p99_limit_ms)


def sweep(
    cpus: int, rounds: int, measure: Callable[[Tuning], Rows], p99_limit_ms: float | None
) -> tuple[list[Trial], Trial]:
    """Measure settings; return all trials, and the recommended one.

    Args:
        cpus: CPUs of the machine.
        rounds: Measurements of each setting.
        measure: Starts a server with a setting and returns its rows.
        p99_limit_ms: Limit of `recommend`.
    """
    trials = _try(layouts(cpus), rounds, measure)
    engine = recommend(trials, p99_limit_ms).tuning[LLM_ENGINE]
    known = [trial.tuning for trial in trials]
    trials += _try([each for each in batchings(engine) if each not in known], rounds, measure)
    return trials, recommend(trials, p99_limit_ms)


def layouts(cpus: int) -> list[Tuning]:
    """Return the contract's setting, then ways to share the CPUs: engines times threads."""
    counts = sorted({1, cpus, *(n for n in (2, 4, 8, 16, 32, 64) if n < cpus)})
    shared = [_tuning(n, max(cpus // n, 1), batch=1, delay_us=0) for n in counts]
    return [{name: model(name, Target.CPU).tuning for name in TUNED_MODELS}, *shared]


def batchings(engine: ModelTuning) -> list[Tuning]:
    """Return ways to batch with an engine's instances and threads."""
    return [
        _tuning(engine.instances, engine.threads, batch=batch, delay_us=delay_us)
        for batch, delay_us in ((1, 0), (MAX_BATCH_SIZE, 0), (MAX_BATCH_SIZE, MAX_QUEUE_DELAY_US))
    ]


def recommend(trials: Sequence[Trial], p99_limit_ms: float | None) -> Trial:
    """Return the setting with the highest throughput; of equal ones, that with the lowest p99.

    Args:
        trials: One trial or more.
        p99_limit_ms: Prefer settings whose p99 is at most this; None for no limit.
    """
    sound = [each for each in trials if not (each.errors or each.without_figures)] or list(trials)
    if p99_limit_ms is not None:
        sound = [t for t in sound if t.p99_ms is not None and t.p99_ms <= p99_limit_ms] or sound
    highest = max(trial.throughput for trial in sound)
    alike = [trial for trial in sound if trial.throughput >= (1 - _ALIKE) * highest]
    return min(alike, key=lambda trial: float("inf") if trial.p99_ms is None else trial.p99_ms)


def write_tuning(path: Path, best: Trial, command: str) -> None:
    """Write the recommended setting for ``adprior build --tuning``; a remark names its origin."""
    machine, row = describe_machine(), best.row()
    latency = "" if row["p99_ms"] is None else f", p99 {row['p99_ms']:.0f} ms at {_SHARE:.0%} of it"
    remarks = (
        f"{command}\n{machine['processor']}, {machine['cpus']} CPUs: {SCENARIO.value} "
        f"{row['throughput']:.1f} requests/s{latency}"
    )
    with replace_file(path) as fresh:
        fresh.write_text(format_tuning(best.tuning, remarks), encoding="utf-8")


def sweep_table(trials: Sequence[Trial], best: Trial) -> str:
    """Return a table of the trials; a star marks the recommended one."""
    rows = [trial.row() | {"": "*" if trial is best else None} for trial in trials]
    problems = [row.pop("problem") for row in rows]
    notes = [
        f"Loads without figures, row {place}: {problem}"
        for place, problem in enumerate(problems, start=1)
        if problem
    ]
    return "\n".join([figures_table(rows, list(rows[0])), *notes])


def _tuning(engines: int, threads: int, *, batch: int, delay_us: int) -> Tuning:
    """Return a setting of the engine, with the same batch size for the models around it."""
    tuning = {}
    for name in TUNED_MODELS:
        chosen = replace(model(name, Target.CPU).tuning, max_batch_size=batch)
        if name == LLM_ENGINE:
            chosen = replace(
                chosen, instances=engines, threads=threads, max_queue_delay_us=delay_us
            )
        tuning[name] = chosen
    return tuning


def _try(tunings: Sequence[Tuning], rounds: int, measure: Callable[[Tuning], Rows]) -> list[Trial]:
    found: list[list[Rows]] = [[] for _ in tunings]
    for _ in range(rounds):
        for measured, tuning in zip(found, tunings, strict=True):
            measured.append(measure(tuning))
    return [Trial.of(tuning, rows) for tuning, rows in zip(tunings, found, strict=True)]
