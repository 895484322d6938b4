"""``adprior bench server --sweep``: servers started, settings tried, the best one written down."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adprior_bench.server.machine import describe_machine
from adprior_bench.server.measurement import Bench, Plan, measure_scenario
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.scenarios import write_input_data
from adprior_bench.server.served import build_repository, serve_repository
from adprior_bench.server.sweep import SCENARIO, SHARE, Rows, Trial, Tuning, sweep
from adprior_bench.server.workload import UserRequest
from adprior_build.repository.server_tuning import format_tuning
from adprior_runtime.engines.processors import available_processors
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.terminal.tables import Column, format_table


def run_sweep(
    bundle: Path,
    requests: list[UserRequest],
    analyzer: PerfAnalyzer,
    plan: Plan,
    scratch: Path,
    p99_limit_ms: float | None,
) -> tuple[list[Trial], Trial]:
    """Try settings on this machine; return all trials, and the one that is recommended.

    Args:
        bundle: What is served.
        requests: What is asked.
        analyzer: Sends it.
        plan: Concurrencies, seconds and rounds.
        scratch: For repositories and input data.
        p99_limit_ms: See `sweep.recommend`.
    """
    numbers = itertools.count()
    input_data = scratch / "sweep.json"
    write_input_data(input_data, SCENARIO, requests)
    once = replace(plan, rounds=1, shares=[SHARE])
    progress = tqdm(unit="server", desc="sweep", leave=False, disable=None)

    def measure(tuning: Tuning) -> Rows:
        place = scratch / f"sweep-{next(numbers)}"
        repository = build_repository(bundle, place, tuning)
        progress.update()
        with serve_repository(repository, bundle) as served:
            bench = Bench(
                analyzer=analyzer,
                server=served.server,
                workers=None,
                input_data=lambda _: input_data,
                progress=lambda: None,
            )
            return measure_scenario(bench, SCENARIO, once)

    with progress:
        return sweep(available_processors(), plan.rounds, measure, p99_limit_ms)


def write_tuning(path: Path, best: Trial, command: str) -> None:
    """Write the recommended setting as a file that ``adprior build --tuning`` takes.

    Args:
        path: Where to.
        best: The setting.
        command: What found it.
    """
    machine, row = describe_machine(), best.row()
    latency = "" if row["p99_ms"] is None else f", p99 {row['p99_ms']:.0f} ms at {SHARE:.0%} of it"
    remarks = (
        f"{command}\n{machine['processor']}, {machine['cpus']} CPUs: {SCENARIO.value} "
        f"{row['throughput']:.1f} requests/s{latency}"
    )
    with replace_file(path) as fresh:
        fresh.write_text(format_tuning(best.tuning, remarks), encoding="utf-8")


def sweep_table(trials: Sequence[Trial], best: Trial) -> str:
    """Return all trials as lines of text; a star marks the one that is recommended.

    Why a load of a trial has no figures is told below the table.
    """
    rows = [trial.row() for trial in trials]
    problems = [row.pop("problem") for row in rows]
    columns: list[Column] = [(name.replace("_", " "), "right") for name in rows[0]]
    cells = [[_cell(value) for value in row.values()] for row in rows]
    marks = ["*" if trial is best else "" for trial in trials]
    lines = [[*line, mark] for line, mark in zip(cells, marks, strict=True)]
    told = [
        f"Loads without figures, row {place}: {problem}"
        for place, problem in enumerate(problems, start=1)
        if problem
    ]
    return "\n".join([format_table([*columns, ("", "left")], lines), *told])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
