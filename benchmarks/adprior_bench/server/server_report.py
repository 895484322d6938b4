"""The report of ``adprior bench server``: tables and plots of `measurement`'s rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from adprior_bench.report.plain import plain
from adprior_bench.report.schema import Cell, Numbers, Report, Section, Table
from adprior_bench.report.tables import COUNT, decimal, make_table, percent
from adprior_bench.report.terminal import report_text
from adprior_bench.report.write import write_report
from adprior_bench.server.counters import FRONT_END
from adprior_bench.server.load import Mode
from adprior_bench.server.measurement import Row, saturated_row
from adprior_bench.server.report_plots import (
    PERCENTILES,
    cpu_plot,
    in_ms,
    label,
    latency_plot,
    ranged,
    steps_plot,
    throughput_plot,
)
from adprior_bench.server.scenarios import TITLES, Scenario
from adprior_runtime.contract import MODEL_NAMES
from adprior_runtime.server.model_counters import STEPS

_Rows = Sequence[Row]

_FORMATS: Final[Mapping[str, Numbers]] = {
    "in flight": COUNT,
    "requests/s sent": decimal(1),
    "of saturation": percent(0),
    "requests/s": decimal(1),
    "in-process requests/s": decimal(1),
    "answered/s": decimal(1),
    "p50 ms": decimal(1),
    "p95 ms": decimal(1),
    "p99 ms": decimal(1),
    "served / in-process": decimal(2),
    "CPU ms/request": decimal(2),
    "in-process CPU ms/request": decimal(2),
    "CPU, server / in-process": decimal(3),
    "requests": COUNT,
    "errors": COUNT,
}
_METHOD: Final = (
    "perf_analyzer sends the requests over gRPC from this machine, so it takes CPU from the "
    "server. Figures are medians over the rounds; brackets show the lowest and the highest round. "
    "CPU seconds are those of tritonserver and of its Python models' processes. In-process: as "
    "many workers as the server has engines, each with as many threads, answer the same requests "
    "one after another, just before and after each round."
)
_STEPS_NOTE: Final = (
    "Mean milliseconds of a request in each model, from Triton's statistics: waiting for the "
    "model, copying tensors in, running the model, copying tensors out; and the CPU of its "
    "processes. Each request of a batch counts the whole time of the batch."
)


def make_report(rows: _Rows, about: Mapping[str, Any]) -> Report:
    """Return the report of rows."""
    machine = about["machine"]
    sections = [_saturation(rows), _loads(rows), _breakdown(rows)]
    return {
        "title": f"Server under load: bundle {about['bundle_id']}",
        "notes": [
            f"{machine['processor']}, {machine['cpus']} CPUs, load average "
            f"{machine['load_average']} at the end; ONNX Runtime {machine['onnxruntime']}; "
            f"perf_analyzer {about['perf_analyzer']}; {about['requests']} different requests of "
            f"users ({about['users']}); rounds: {about['rounds']} of {about['seconds']:g} s.",
            _METHOD,
        ],
        "sections": [section for section in sections if section["content"]],
        "data": {"about": dict(about), "rows": list(rows)},
    }


def show_report(report: Report, directory: Path | None) -> str:
    """Return the report as text; write it into a directory, if one is given."""
    text = report_text(plain(report), directory)
    if directory is not None:
        write_report(report, directory)
    return text


def _saturation(rows: _Rows) -> Section:
    best = [row for row in (saturated_row(rows, each) for each in Scenario) if row is not None]
    cells: list[dict[str, Cell]] = [
        {
            "scenario": _title(row),
            "in flight": row["concurrency_or_rate"],
            "requests/s": ranged(row, "throughput"),
            "in-process requests/s": row["in_process_throughput"],
            "served / in-process": ranged(row, "served_over_in_process"),
            "CPU ms/request": in_ms(ranged(row, "cpu_s_per_request")),
            "in-process CPU ms/request": in_ms(row["in_process_cpu_s_per_request"]),
            "CPU, server / in-process": ranged(row, "cpu_over_in_process"),
            "errors": row["errors"],
        }
        for row in best
    ]
    title = "The closed loop with the highest throughput"
    return {
        "title": "Saturation",
        "notes": _cost_notes(rows),
        "content": [make_table(title, cells, _FORMATS)] if cells else [],
    }


def _cost_notes(rows: _Rows) -> list[str]:
    """Compare ranking with a stored forecast with live ranking."""
    stored = saturated_row(rows, Scenario.STORED_RANKING)
    live = saturated_row(rows, Scenario.LIVE_RANKING)
    if stored is None or live is None:
        return []
    costs = [f"{live['throughput'] / stored['throughput']:.3f} of the time at saturation"]
    if stored["cpu_s_per_request"] and live["cpu_s_per_request"]:
        costs.append(f"{stored['cpu_s_per_request'] / live['cpu_s_per_request']:.3f} of the CPU")
    return [f"Ranking with a stored forecast costs {' and '.join(costs)} of live ranking."]


def _loads(rows: _Rows) -> Section:
    content: list[Any] = []
    closed = [row for row in rows if row["mode"] == Mode.CLOSED]
    opened = [row for row in rows if row["mode"] == Mode.OPEN]
    for chosen, title in (
        (closed, "Closed loop: a fixed number in flight"),
        (opened, "Open loop: Poisson arrivals at shares of the saturation"),
    ):
        if chosen:
            problems = [_problem(row) for row in chosen if row["problem"]]
            note = f"Rounds without figures: {'; '.join(problems)}." if problems else ""
            cells = [_load_cells(row) for row in chosen]
            content.append(make_table(title, cells, _FORMATS, note=note))
    for each in Scenario:
        for chosen, plot in ((closed, throughput_plot), (opened, latency_plot)):
            if mine := [row for row in chosen if row["scenario"] == each]:
                content.append(plot(each, mine))
    return {"title": "Loads", "notes": [], "content": content}


def _load_cells(row: Row) -> dict[str, Cell]:
    load = {"in flight": row["concurrency_or_rate"]}
    if row["mode"] == Mode.OPEN:
        load = {
            "requests/s sent": row["concurrency_or_rate"],
            "of saturation": row["share_of_saturation"],
        }
    return {
        "scenario": _title(row),
        **load,
        "answered/s": ranged(row, "throughput"),
        **{label(key): ranged(row, key) for key in PERCENTILES},
        "CPU ms/request": in_ms(row["cpu_s_per_request"]),
        "requests": row["requests"],
        "errors": row["errors"],
    }


def _problem(row: Row) -> str:
    """Say why a load has no figures: perf_analyzer gave up, which is no error of the server."""
    load = f"{row['concurrency_or_rate']:g} in flight"
    if row["mode"] == Mode.OPEN:
        load = f"{row['concurrency_or_rate']:.1f} requests/s"
    problem = str(row["problem"]).rstrip(".")
    return f"{_title(row)}, {load} ({row['without_figures']}): {problem}"


def _breakdown(rows: _Rows) -> Section:
    content: list[Any] = []
    for each in Scenario:
        row = saturated_row(rows, each)
        if row is None:
            continue
        content.append(_steps_table(each, row))
        models = [name for name in row["step_ms"] if name in row["cpu_s_by_process"]]
        content.append(steps_plot(each, row, models or [*row["step_ms"]]))
    content += cpu_plot(rows)
    return {"title": "Where the time goes", "notes": [_STEPS_NOTE], "content": content}


def _steps_table(scenario: Scenario, row: Row) -> Table:
    names = [name for name in MODEL_NAMES if name in row["step_ms"]]
    if FRONT_END in row["cpu_s_by_process"]:
        names.insert(0, FRONT_END)
    formats = {
        **{label(step): decimal(3) for step in STEPS},
        "requests a batch": decimal(2),
        "CPU ms/request": decimal(3),
    }
    cells: list[dict[str, Cell]] = [
        {
            "process or model": name,
            **{label(step): row["step_ms"].get(name, {}).get(step) for step in STEPS},
            "requests a batch": row["batch_size"].get(name),
            "CPU ms/request": in_ms(row["cpu_s_by_process"].get(name)),
        }
        for name in names
    ]
    title = f"{TITLES[scenario]}, {row['concurrency_or_rate']} in flight"
    return make_table(title, cells, formats)


def _title(row: Row) -> str:
    return TITLES[Scenario(row["scenario"])]
