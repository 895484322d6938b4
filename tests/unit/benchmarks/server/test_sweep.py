from __future__ import annotations

from dataclasses import replace
from typing import Any

from adprior_bench.server.load import Mode
from adprior_bench.server.sweep import (
    Trial,
    batchings,
    layouts,
    recommend,
    sweep,
    sweep_table,
)
from adprior_runtime.contract import LLM_ENGINE, Target
from adprior_runtime.repository.model_specs import ModelTuning, model
from adprior_runtime.repository.tuning import Tuning
from unit.benchmarks.server.conftest import MakeRow


def test_layouts_share_the_cpus_among_engines() -> None:
    for cpus in (1, 2, 6, 16):
        contracts, *shared = layouts(cpus)
        assert contracts[LLM_ENGINE] == model(LLM_ENGINE, Target.CPU).tuning
        pairs = [(each[LLM_ENGINE].instances, each[LLM_ENGINE].threads) for each in shared]
        assert (1, cpus) in pairs
        assert (cpus, 1) in pairs
        assert all(engines * threads <= cpus for engines, threads in pairs)


def _trial(engines: int, throughput: float, p99_ms: float | None, errors: int = 0) -> Trial:
    return Trial(
        tuning={LLM_ENGINE: ModelTuning(instances=engines)}, throughput=throughput, p50_ms=1.0,
        p99_ms=p99_ms, cpu_s_per_request=0.1, errors=errors,
    )  # fmt: skip


def test_the_fastest_below_the_limit_is_recommended() -> None:
    fast, alike, slow = _trial(1, 100, 90), _trial(2, 98, 50), _trial(3, 80, 20)
    broken = _trial(4, 200, 5, errors=1)
    silent = replace(_trial(5, 300, 5), without_figures=1)
    trials = [fast, alike, slow, broken, silent]
    assert recommend(trials, None) is alike
    assert recommend(trials, 30) is slow
    assert recommend(trials, 1) is alike  # none is below the limit
    assert recommend([broken], None) is broken


def test_the_table_says_why_a_trial_lacks_figures() -> None:
    silent = replace(_trial(2, 0.0, None), without_figures=3, problem="it saw nothing")
    best = _trial(1, 100, 90)
    lines = sweep_table([best, silent], best).splitlines()
    assert lines[-1] == "Loads without figures, row 2: it saw nothing"
    assert lines[1].endswith("*")
    assert silent.row()["errors"] == 0


def test_a_sweep_batches_around_the_best_layout(make_row: MakeRow) -> None:
    measured: list[Tuning] = []

    def measure(tuning: Tuning) -> list[dict[str, Any]]:
        measured.append(tuning)
        engine = tuning[LLM_ENGINE]
        throughput = 10.0 * engine.instances + 5 * engine.threads + engine.max_batch_size / 10
        return [make_row(Mode.CLOSED, 1, throughput), make_row(Mode.OPEN, 7.0, 7.0)]

    trials, best = sweep(2, 2, measure, None)
    engine = best.tuning[LLM_ENGINE]
    assert (engine.instances, engine.threads, engine.max_batch_size) == (2, 1, 16)
    assert len(measured) == 2 * len(trials)
    tried = [trial.tuning for trial in trials]
    assert all(setting in tried for setting in batchings(engine))
    assert best.p50_ms == 10
    assert best.p99_ms == 30
