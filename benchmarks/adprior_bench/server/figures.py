"""The rows of ``adprior bench server`` as a report: tables, plots, what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from adprior_bench.report.plain import plain
from adprior_bench.report.schema import Column, Report, Section, Table
from adprior_bench.report.terminal import report_text
from adprior_bench.report.write import write_report
from adprior_bench.server.figure_plots import (
    PERCENTILES,
    TITLES,
    cpu_plot,
    in_ms,
    label,
    latency_plot,
    ranged,
    steps_plot,
    throughput_plot,
)
from adprior_bench.server.load import Mode
from adprior_bench.server.measurement import saturated_row
from adprior_bench.server.scenarios import Scenario
from adprior_bench.server.server_work import FRONT_END, STEPS
from adprior_runtime.contract import MODEL_NAMES

_Rows = Sequence[Mapping[str, Any]]

_MEASURED: Final = (
    "perf_analyzer sends the requests over gRPC from this machine, so it takes CPU from the "
    "server. Figures are medians of the rounds; in brackets, the least and the most of a round. "
    "CPU seconds are those of tritonserver and of its Python models' processes. In-process, as "
    "many workers as the server has engines answer the same requests one after another, with as "
    "many threads, just before and after each round."
)


def make_report(rows: _Rows, about: Mapping[str, Any]) -> Report:
    """Return the report of `measurement.measure_scenario`'s rows.

    Args:
        rows: Of one or more scenarios.
        about: What was measured, where and how; its ``machine`` is `machine.describe_machine`'s.
    """
    machine = about["machine"]
    sections = [_saturation(rows), _loops(rows), _breakdown(rows)]
    return {
        "title": f"Server under load: bundle {about['bundle_id']}",
        "notes": [
            f"{machine['processor']}, {machine['cpus']} CPUs, load average "
            f"{machine['load_average']} at the end; ONNX Runtime {machine['onnxruntime']}; "
            f"perf_analyzer {about['perf_analyzer']}; {about['requests']} different requests of "
            f"users ({about['users']}); rounds: {about['rounds']} of {about['seconds']:g} s.",
            _MEASURED,
        ],
        "sections": [section for section in sections if section["content"]],
        "data": {"about": dict(about), "rows": list(rows)},
    }


def show_report(report: Report, directory: Path | None) -> str:
    """Write the report, if there is a place for it; return it as text."""
    text = report_text(plain(report), directory)
    if directory is not None:
        write_report(report, directory)
    return text


def _saturation(rows: _Rows) -> Section:
    columns: list[Column] = [
        {"title": "scenario"},
        {"title": "in flight", "format": "count"},
        *_decimals("requests/s", 1),
        *_decimals("in-process requests/s", 1),
        *_decimals("served / in-process", 2),
        *_decimals("CPU ms/request", 2),
        *_decimals("in-process CPU ms/request", 2),
        *_decimals("CPU, server / in-process", 3),
        {"title": "errors", "format": "count"},
    ]
    best = {each: saturated_row(rows, each) for each in Scenario}
    table: Table = {
        "kind": "table",
        "title": "The closed loop with the highest throughput",
        "columns": columns,
        "rows": [
            [
                TITLES[each],
                row["concurrency_or_rate"],
                ranged(row, "throughput"),
                row["in_process_throughput"],
                ranged(row, "served_over_in_process"),
                in_ms(ranged(row, "cpu_s_per_request")),
                in_ms(row["in_process_cpu_s_per_request"]),
                ranged(row, "cpu_over_in_process"),
                row["errors"],
            ]
            for each, row in best.items()
            if row is not None
        ],
    }
    return {
        "title": "Saturation",
        "notes": _cost_notes(rows),
        "content": [table] if table["rows"] else [],
    }


def _cost_notes(rows: _Rows) -> list[str]:
    """Say what ranking with a forecast at hand costs beside a live one."""
    stored = saturated_row(rows, Scenario.STORED_RANKING)
    live = saturated_row(rows, Scenario.LIVE_RANKING)
    if stored is None or live is None:
        return []
    told = [f"{live['throughput'] / stored['throughput']:.3f} of the time at saturation"]
    if stored["cpu_s_per_request"] and live["cpu_s_per_request"]:
        told.append(f"{stored['cpu_s_per_request'] / live['cpu_s_per_request']:.3f} of the CPU")
    return [f"Ranking with a forecast at hand costs {' and '.join(told)} of live ranking."]


def _loops(rows: _Rows) -> Section:
    content: list[Any] = []
    for mode, title, heading in (
        (Mode.CLOSED, "Closed loop: so many requests in flight", "in flight"),
        (Mode.OPEN, "Open loop: Poisson arrivals at shares of the saturation", "requests/s sent"),
    ):
        chosen = [row for row in rows if row["mode"] == mode]
        if chosen:
            content.append(_loop_table(chosen, mode, title, heading))
    for each in Scenario:
        mine = [row for row in rows if row["scenario"] == each]
        closed = [row for row in mine if row["mode"] == Mode.CLOSED]
        opened = [row for row in mine if row["mode"] == Mode.OPEN]
        if closed:
            content.append(throughput_plot(each, closed))
        if opened:
            content.append(latency_plot(each, opened))
    return {"title": "Loads", "notes": [], "content": content}


def _loop_table(rows: _Rows, mode: Mode, title: str, heading: str) -> Table:
    note = "; ".join(_problem(row) for row in rows if row["problem"])
    shares: list[Column] = [{"title": "of saturation", "format": "percent", "digits": 0}]
    table: Table = {
        "kind": "table",
        "title": title,
        "columns": [
            {"title": "scenario"},
            {"title": heading, "format": "decimal", "digits": 0 if mode is Mode.CLOSED else 1},
            *(shares if mode is Mode.OPEN else []),
            *_decimals("answered/s", 1),
            *(column for key in PERCENTILES for column in _decimals(label(key), 1)),
            *_decimals("CPU ms/request", 2),
            {"title": "requests", "format": "count"},
            {"title": "errors", "format": "count"},
        ],
        "rows": [
            [
                TITLES[Scenario(row["scenario"])],
                row["concurrency_or_rate"],
                *([row["share_of_saturation"]] if mode is Mode.OPEN else []),
                ranged(row, "throughput"),
                *(ranged(row, key) for key in PERCENTILES),
                in_ms(row["cpu_s_per_request"]),
                row["requests"],
                row["errors"],
            ]
            for row in rows
        ],
    }
    if note:
        table["note"] = f"Rounds without figures: {note}."
    return table


def _problem(row: Mapping[str, Any]) -> str:
    """Say why a load has no figures; that is perf_analyzer's, and no error of the server's."""
    load = f"{row['concurrency_or_rate']:g} in flight"
    if row["mode"] == Mode.OPEN:
        load = f"{row['concurrency_or_rate']:.1f} requests/s"
    told = str(row["problem"]).rstrip(".")
    return f"{TITLES[Scenario(row['scenario'])]}, {load} ({row['without_figures']}): {told}"


def _breakdown(rows: _Rows) -> Section:
    content: list[Any] = []
    for each in Scenario:
        row = saturated_row(rows, each)
        if row is None:
            continue
        names = [name for name in (FRONT_END, *MODEL_NAMES) if _does_work(row, name)]
        content.append(_steps_table(each, row, names))
        models = [name for name in names if row["cpu_s_by_process"].get(name) is not None]
        steps = [name for name in models if name in row["step_ms"]] or [*row["step_ms"]]
        content.append(steps_plot(each, row, steps))
    content += cpu_plot(rows)
    return {
        "title": "Where the time goes",
        "notes": [
            "Mean milliseconds of a request in each model, by Triton's statistics: waiting for "
            "the model, tensors copied in, the model, tensors copied out; and the CPU of its "
            "processes. Requests that share a batch each count its whole time."
        ],
        "content": content,
    }


def _does_work(row: Mapping[str, Any], name: str) -> bool:
    return name in row["step_ms"] or (name == FRONT_END and name in row["cpu_s_by_process"])


def _steps_table(scenario: Scenario, row: Mapping[str, Any], names: Sequence[str]) -> Table:
    return {
        "kind": "table",
        "title": f"{TITLES[scenario]}, {row['concurrency_or_rate']} in flight",
        "columns": [
            {"title": "process or model"},
            *(column for step in STEPS for column in _decimals(label(step), 3)),
            *_decimals("requests a batch", 2),
            *_decimals("CPU ms/request", 3),
        ],
        "rows": [
            [
                name,
                *(row["step_ms"].get(name, {}).get(step) for step in STEPS),
                row["batch_size"].get(name),
                in_ms(row["cpu_s_by_process"].get(name)),
            ]
            for name in names
        ],
    }


def _decimals(title: str, digits: int) -> tuple[Column]:
    return ({"title": title, "format": "decimal", "digits": digits},)
