"""The plots of a report on ``adprior bench server``, and how its figures are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adprior_bench.report.schema import BarsPlot, LinesPlot
from adprior_bench.server.measurement import saturated_row
from adprior_bench.server.scenarios import Scenario
from adprior_bench.server.server_work import FRONT_END, STEPS
from adprior_runtime.contract import MODEL_NAMES

_Rows = Sequence[Mapping[str, Any]]

TITLES: Final = {
    Scenario.RETRIEVAL: "retrieval",
    Scenario.LIVE_RANKING: "live ranking",
    Scenario.STORED_RANKING: "ranking, forecast at hand",
}
PERCENTILES: Final = ("p50_ms", "p95_ms", "p99_ms")


def label(key: str) -> str:
    """Return a key of a row in words."""
    return key.replace("_ms", " ms").replace("_", " ")


def ranged(row: Mapping[str, Any], key: str) -> Any:
    """Return a figure with the least and the most of a round, where there were several."""
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
        {"label": "served", "estimates": [_estimate(row, "throughput") for row in rows]}
    ]
    if rows[0]["in_process_throughput"] is not None:
        beside = [_point(row["in_process_throughput"]) for row in rows]
        lines.append({"label": "in-process", "estimates": beside})
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
    """Return percentiles against the rate, as a share of the saturation."""
    return {
        "kind": "lines",
        "name": f"latency-{scenario.replace('_', '-')}",
        "title": f"Latency of {TITLES[scenario]}, Poisson arrivals",
        "format": "decimal",
        "x": [row["share_of_saturation"] for row in rows],
        "x_format": "percent",
        "x_label": "rate, of the saturation throughput",
        "value_label": "ms",
        "series": [
            {"label": label(key), "estimates": [_estimate(row, key) for row in rows]}
            for key in PERCENTILES
        ],
    }


def steps_plot(scenario: Scenario, row: Mapping[str, Any], names: Sequence[str]) -> BarsPlot:
    """Return the time of a request in each step of each model."""
    return {
        "kind": "bars",
        "name": f"steps-{scenario.replace('_', '-')}",
        "title": f"{TITLES[scenario]}: ms of a request in each model".capitalize(),
        "format": "decimal",
        "digits": 2,
        "groups": [label(step) for step in STEPS],
        "series": [
            {"label": name, "estimates": [_point(row["step_ms"][name][step]) for step in STEPS]}
            for name in names
        ],
    }


def cpu_plot(rows: _Rows) -> list[BarsPlot]:
    """Return CPU by process beside the engine in-process; nothing where no CPU could be seen."""
    best = {each: saturated_row(rows, each) for each in Scenario}
    found = {each: row for each, row in best.items() if row and row["cpu_s_per_request"]}
    if not found:
        return []
    names = [
        name
        for name in (FRONT_END, *MODEL_NAMES)
        if any(row["cpu_s_by_process"].get(name) for row in found.values())
    ]
    series: list[Any] = [
        {
            "label": name,
            "estimates": [
                _point(in_ms(row["cpu_s_by_process"].get(name))) for row in found.values()
            ],
        }
        for name in names
    ]
    for title, key in (
        ("the whole server", "cpu_s_per_request"),
        ("in-process", "in_process_cpu_s_per_request"),
    ):
        totals = [_point(in_ms(row[key])) for row in found.values()]
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


def _estimate(row: Mapping[str, Any], key: str) -> dict[str, float] | None:
    shown = ranged(row, key)
    return shown if isinstance(shown, dict) else _point(shown)


def _point(value: float | None) -> dict[str, float] | None:
    return None if value is None else {"value": value, "low": value, "high": value}
