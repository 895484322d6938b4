"""Tries instances, threads and batching of the embedded server, and recommends one setting.

Two steps: ways to share the CPUs between engines, then ways to batch with the best of these. Each
setting is a server of its own. The best throughput of its closed loops is its saturation; its p99
is taken at 70 % of that, with Poisson arrivals. A round measures every setting of a step once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from adprior_bench.server.load import Mode
from adprior_bench.server.measurement import saturated_row
from adprior_bench.server.scenarios import Scenario
from adprior_runtime.contract import LLM_ENGINE, MAX_BATCH_SIZE, MAX_QUEUE_DELAY_US, Target
from adprior_runtime.repository.model_specs import Scaling, model
from adprior_runtime.repository.scaling import TUNED_MODELS

SCENARIO: Final = Scenario.LIVE_RANKING
"""What settings are judged on: it goes through every model."""

SHARE: Final = 0.7
"""Of a setting's own saturation, where its p99 is taken."""

_ALIKE: Final = 0.03
"""Throughputs that differ by less are the same: the lower p99 decides."""

Tuning = dict[str, Scaling]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting and what it gave.

    Attributes:
        tuning: The setting, of every model that can be tuned.
        throughput: Requests a second at saturation; 0 where every load failed.
        p50_ms: Of one request at a time.
        p99_ms: At `SHARE` of the saturation.
        cpu_s_per_request: Of the whole server, at saturation.
        errors: Requests that the server failed, of all loads.
        without_figures: Loads in which perf_analyzer gave up.
        problem: Why, the first time; None where it did not.
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
    def of(cls, tuning: Tuning, rounds: Iterable[Rows]) -> Trial:
        """Return what the rounds of a setting gave: medians, and the sum of the errors."""
        best = [saturated_row(rows, SCENARIO) or {} for rows in rounds]
        found = [row for rows in rounds for row in rows]
        single = [row for row in found if row["mode"] == Mode.CLOSED]
        least = min((row["concurrency_or_rate"] for row in single), default=None)
        return cls(
            tuning=tuning,
            throughput=_median(row.get("throughput") for row in best) or 0.0,
            p50_ms=_median(r["p50_ms"] for r in single if r["concurrency_or_rate"] == least),
            p99_ms=_median(row["p99_ms"] for row in found if row["mode"] == Mode.OPEN),
            cpu_s_per_request=_median(row.get("cpu_s_per_request") for row in best),
            errors=sum(row["errors"] for row in found),
            without_figures=sum(row["without_figures"] for row in found),
            problem=next((row["problem"] for row in found if row["problem"]), None),
        )

    def row(self) -> dict[str, Any]:
        """Return it for tables and machines."""
        engine = self.tuning[LLM_ENGINE]
        return {
            "engines": engine.instances,
            "threads": engine.threads,
            "max_batch_size": engine.max_batch_size,
            "max_queue_delay_us": engine.max_queue_delay_us,
            "throughput": self.throughput,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "cpu_s_per_request": self.cpu_s_per_request,
            "errors": self.errors,
            "without_figures": self.without_figures,
            "problem": self.problem,
        }


def sweep(
    cpus: int, rounds: int, measure: Callable[[Tuning], Rows], p99_limit_ms: float | None
) -> tuple[list[Trial], Trial]:
    """Measure settings; return all of them, and the one that is recommended.

    Args:
        cpus: Of the machine.
        rounds: How often each is measured.
        measure: Starts a server with a setting and returns its rows.
        p99_limit_ms: See `recommend`.
    """
    trials = _try(layouts(cpus), rounds, measure)
    engine = recommend(trials, p99_limit_ms).tuning[LLM_ENGINE]
    known = [trial.tuning for trial in trials]
    trials += _try([each for each in batchings(engine) if each not in known], rounds, measure)
    return trials, recommend(trials, p99_limit_ms)


def layouts(cpus: int) -> list[Tuning]:
    """Return the contract's setting, then ways to share CPUs: engines times threads fill them."""
    counts = sorted({1, cpus, *(n for n in (2, 4, 8, 16, 32, 64) if n < cpus)})
    shared = [_tuning(n, max(cpus // n, 1), batch=1, delay_us=0) for n in counts]
    return [{name: model(name, Target.CPU).scaling for name in TUNED_MODELS}, *shared]


def batchings(engine: Scaling) -> list[Tuning]:
    """Return ways to batch with an engine's instances and threads."""
    return [
        _tuning(engine.instances, engine.threads, batch=batch, delay_us=delay_us)
        for batch, delay_us in ((1, 0), (MAX_BATCH_SIZE, 0), (MAX_BATCH_SIZE, MAX_QUEUE_DELAY_US))
    ]


def recommend(trials: Sequence[Trial], p99_limit_ms: float | None) -> Trial:
    """Return the setting with the highest throughput; of those alike, that of the lowest p99.

    Args:
        trials: At least one.
        p99_limit_ms: Only of those below it, if any is; None for no limit.
    """
    sound = [each for each in trials if not (each.errors or each.without_figures)] or list(trials)
    if p99_limit_ms is not None:
        sound = [t for t in sound if t.p99_ms is not None and t.p99_ms <= p99_limit_ms] or sound
    most = max(trial.throughput for trial in sound)
    alike = [trial for trial in sound if trial.throughput >= (1 - _ALIKE) * most]
    return min(alike, key=lambda trial: float("inf") if trial.p99_ms is None else trial.p99_ms)


def _tuning(engines: int, threads: int, *, batch: int, delay_us: int) -> Tuning:
    """Return a setting: the engine's, and its batches for the models around it too."""
    tuning = {}
    for name in TUNED_MODELS:
        scaling = replace(model(name, Target.CPU).scaling, max_batch_size=batch)
        if name == LLM_ENGINE:
            scaling = replace(
                scaling, instances=engines, threads=threads, max_queue_delay_us=delay_us
            )
        tuning[name] = scaling
    return tuning


def _try(tunings: Sequence[Tuning], rounds: int, measure: Callable[[Tuning], Rows]) -> list[Trial]:
    found: list[list[Rows]] = [[] for _ in tunings]
    for _ in range(rounds):
        for place, tuning in zip(found, tunings, strict=True):
            place.append(measure(tuning))
    return [Trial.of(tuning, rows) for tuning, rows in zip(tunings, found, strict=True)]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
