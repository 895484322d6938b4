"""The report of ``adprior bench server``: tables and plots of `measurement`'s rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from adprior_bench.report.plain import plain
from adprior_bench.report.schema import Column, Report, Section, Table
from adprior_bench.report.terminal import report_text
from adprior_bench.report.write import write_report
from adprior_bench.server.counters import FRONT_END, STEPS
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

_Rows = Sequence[Row]
_TableColumn = tuple[Column, Callable[[Row], Any]]
"""A column, and the cell that a row has in it."""

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
    """Return the report of rows.

    Args:
        rows: Rows of one or more scenarios.
        about: What was measured, where and how; ``machine`` is from `machine.describe_machine`.
    """
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
    table = _table(
        "The closed loop with the highest throughput",
        best,
        _SCENARIO,
        _count("in flight", "concurrency_or_rate"),
        _ranged("requests/s", 1, "throughput"),
        _decimal("in-process requests/s", 1, itemgetter("in_process_throughput")),
        _ranged("served / in-process", 2, "served_over_in_process"),
        _CPU,
        _decimal("in-process CPU ms/request", 2, _in_process_cpu_ms),
        _ranged("CPU, server / in-process", 3, "cpu_over_in_process"),
        _ERRORS,
    )
    return {
        "title": "Saturation",
        "notes": _cost_notes(rows),
        "content": [table] if best else [],
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
    if closed:
        in_flight = _decimal("in flight", 0, itemgetter("concurrency_or_rate"))
        content.append(_loads_table("Closed loop: a fixed number in flight", closed, in_flight))
    if opened:
        content.append(
            _loads_table(
                "Open loop: Poisson arrivals at shares of the saturation",
                opened,
                _decimal("requests/s sent", 1, itemgetter("concurrency_or_rate")),
                (
                    {"title": "of saturation", "format": "percent", "digits": 0},
                    itemgetter("share_of_saturation"),
                ),
            )
        )
    for each in Scenario:
        for chosen, plot in ((closed, throughput_plot), (opened, latency_plot)):
            if mine := [row for row in chosen if row["scenario"] == each]:
                content.append(plot(each, mine))
    return {"title": "Loads", "notes": [], "content": content}


def _loads_table(title: str, rows: _Rows, *load: _TableColumn) -> Table:
    percentiles = [_ranged(label(key), 1, key) for key in PERCENTILES]
    answered = _ranged("answered/s", 1, "throughput")
    requests = _count("requests", "requests")
    table = _table(
        title, rows, _SCENARIO, *load, answered, *percentiles, _CPU_MEDIAN, requests, _ERRORS
    )
    if problems := [_problem(row) for row in rows if row["problem"]]:
        table["note"] = f"Rounds without figures: {'; '.join(problems)}."
    return table


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
    parts = [
        {
            "name": name,
            **row["step_ms"].get(name, dict.fromkeys(STEPS)),
            "batch_size": row["batch_size"].get(name),
            "cpu_ms": in_ms(row["cpu_s_by_process"].get(name)),
        }
        for name in names
    ]
    return _table(
        f"{TITLES[scenario]}, {row['concurrency_or_rate']} in flight",
        parts,
        ({"title": "process or model"}, itemgetter("name")),
        *(_decimal(label(step), 3, itemgetter(step)) for step in STEPS),
        _decimal("requests a batch", 2, itemgetter("batch_size")),
        _decimal("CPU ms/request", 3, itemgetter("cpu_ms")),
    )


def _table(title: str, rows: _Rows, *columns: _TableColumn) -> Table:
    return {
        "kind": "table",
        "title": title,
        "columns": [column for column, _ in columns],
        "rows": [[cell(row) for _, cell in columns] for row in rows],
    }


def _decimal(title: str, digits: int, cell: Callable[[Row], Any]) -> _TableColumn:
    return {"title": title, "format": "decimal", "digits": digits}, cell


def _ranged(title: str, digits: int, key: str) -> _TableColumn:
    return _decimal(title, digits, lambda row: ranged(row, key))


def _count(title: str, key: str) -> _TableColumn:
    return {"title": title, "format": "count"}, itemgetter(key)


def _title(row: Row) -> str:
    return TITLES[Scenario(row["scenario"])]


def _in_process_cpu_ms(row: Row) -> Any:
    return in_ms(row["in_process_cpu_s_per_request"])


_SCENARIO: Final[_TableColumn] = ({"title": "scenario"}, _title)
_CPU: Final = _decimal("CPU ms/request", 2, lambda row: in_ms(ranged(row, "cpu_s_per_request")))
_CPU_MEDIAN: Final = _decimal("CPU ms/request", 2, lambda row: in_ms(row["cpu_s_per_request"]))
_ERRORS: Final = _count("errors", "errors")
