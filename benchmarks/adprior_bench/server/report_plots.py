"""The plots in the report of ``adprior bench server``, and how its figures are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adprior_bench.report.schema import BarsPlot, LinesPlot
from adprior_bench.server.counters import FRONT_END
from adprior_bench.server.measurement import Row, saturated_row
from adprior_bench.server.scenarios import TITLES, Scenario
from adprior_runtime.contract import MODEL_NAMES
from adprior_runtime.server.model_counters import STEPS

_Rows = Sequence[Row]

PERCENTILES: Final = ("p50_ms", "p95_ms", "p99_ms")


def label(key: str) -> str:
    """Return a key of a row in words."""
    return key.replace("_ms", " ms").replace("_", " ")


def ranged(row: Row, key: str) -> Any:
    """Return a figure, with the lowest and the highest round if they differ."""
    low_high = row["ranges"].get(key)
    if row[key] is None or low_high is None or low_high[0] == low_high[1]:
        return row[key]
    return {"value": row[key], "low": low_high[0], "high": low_high[1]}


def in_ms(value: Any) -> Any:
    """Return seconds, or an estimate in seconds, in milliseconds."""
    if isinstance(value, Mapping):
        return {key: 1e3 * each for key, each in value.items()}
    return None if value is None else 1e3 * value


def throughput_plot(scenario: Scenario, rows: _Rows) -> LinesPlot:
    """Return served and in-process throughput against the requests in flight."""
    lines: list[Any] = [
        {"label": "served", "estimates": [_estimate(ranged(row, "throughput")) for row in rows]}
    ]
    if rows[0]["in_process_throughput"] is not None:
        in_process = [_estimate(row["in_process_throughput"]) for row in rows]
        lines.append({"label": "in-process", "estimates": in_process})
    return {
        "kind": "lines",
        "name": f"throughput-{scenario.replace('_', '-')}",
        "title": f"Throughput of {TITLES[scenario]}",
        "format": "decimal",
        "x": [row["concurrency_or_rate"] for row in rows],
        "x_label": "requests in flight",
        "value_label": "requests a second",
        "series": lines,
    }


def latency_plot(scenario: Scenario, rows: _Rows) -> LinesPlot:
    """Return percentiles of the latency against the rate, as a share of the saturation."""
    return {
        "kind": "lines",
        "name": f"latency-{scenario.replace('_', '-')}",
        "title": f"Latency of {TITLES[scenario]}, Poisson arrivals",
        "format": "decimal",
        "x": [row["share_of_saturation"] for row in rows],
        "x_format": "percent",
        "x_label": "rate, as a share of the saturation throughput",
        "value_label": "ms",
        "series": [
            {"label": label(key), "estimates": [_estimate(ranged(row, key)) for row in rows]}
            for key in PERCENTILES
        ],
    }


def steps_plot(scenario: Scenario, row: Row, names: Sequence[str]) -> BarsPlot:
    """Return the time of a request in each step of some models."""
    return {
        "kind": "bars",
        "name": f"steps-{scenario.replace('_', '-')}",
        "title": f"{TITLES[scenario]}: ms of a request in each model".capitalize(),
        "format": "decimal",
        "digits": 2,
        "groups": [label(step) for step in STEPS],
        "series": [
            {"label": name, "estimates": [_estimate(row["step_ms"][name][step]) for step in STEPS]}
            for name in names
        ],
    }


def cpu_plot(rows: _Rows) -> list[BarsPlot]:
    """Return CPU by process and of the engine in-process; nothing if no CPU was measured."""
    best = {each: saturated_row(rows, each) for each in Scenario}
    found = {each: row for each, row in best.items() if row and row["cpu_s_per_request"]}
    if not found:
        return []
    series: list[Any] = []
    for name in (FRONT_END, *MODEL_NAMES):
        cpu_s = [row["cpu_s_by_process"].get(name) for row in found.values()]
        if any(cpu_s):
            series.append({"label": name, "estimates": [_estimate(in_ms(each)) for each in cpu_s]})
    for title, key in (
        ("the whole server", "cpu_s_per_request"),
        ("in-process", "in_process_cpu_s_per_request"),
    ):
        totals = [_estimate(in_ms(row[key])) for row in found.values()]
        series.append({"label": title, "estimates": totals, "highlight": True})
    return [
        {
            "kind": "bars",
            "name": "cpu",
            "title": "CPU ms of a request, by process",
            "format": "decimal",
            "digits": 2,
            "groups": [TITLES[each] for each in found],
            "series": series,
        }
    ]


def _estimate(value: Any) -> dict[str, float] | None:
    if value is None or isinstance(value, dict):
        return value
    return {"value": value, "low": value, "high": value}
