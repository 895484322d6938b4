"""Plots as PNG images: reliability diagrams, bars with intervals, and lines with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from adprior_bench.report.cells import format_number, unit_of
from adprior_bench.report.plot_style import (
    ACCENT,
    COLOURS,
    GREY,
    INK,
    MARKERS,
    format_axis,
    intervals_of,
    png,
    set_title,
    wrap,
)

_TICKS: Final = (0, 0.003, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
_SMALLEST_GAP: Final = 0.11
"""Smallest gap between two ticks, as a share of the axis."""
_LABEL_WIDTH: Final = 36
_BAR_COLOUR: Final = "#9CC3DD"


def draw(plot: Mapping[str, Any]) -> bytes:
    """Return a plain plot as a PNG."""
    compose = {
        "reliability": compose_reliability,
        "bars": _compose_bars,
        "lines": _compose_lines,
    }
    return png(plot, compose[plot["kind"]])


def compose_reliability(plot: Mapping[str, Any]) -> Figure:
    """Draw a square panel for each series, with square-root axes: most probabilities are small."""
    series = plot["series"]
    across = 2 if len(series) == 4 else min(len(series), 3)
    down = math.ceil(len(series) / across)
    width = max(3.1 * across, 5.0)
    figure = Figure(figsize=(width, 3.2 * down + 0.7), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    ends = [
        value
        for each in series
        for item in each["bins"]
        for value in (item["predicted"], (item["observed"] or {}).get("high") or 0.0)
    ]
    limit = min(1.0, 1.15 * max(ends, default=1.0)) or 1.0
    for panel, each in zip(panels, series, strict=False):
        panel.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        values, reach = intervals_of([item["observed"] for item in each["bins"]])
        predicted = [item["predicted"] for item in each["bins"]]
        panel.errorbar(
            predicted, values, yerr=reach, fmt="o", markersize=4.5, linewidth=1.2,
            color=COLOURS[0], clip_on=False,
        )  # fmt: skip
        panel.set_title(wrap(each["label"], 36))
        _set_root_axes(panel, limit, plot)
        panel.tick_params(labelbottom=True)  # shared axes would label the lowest row only
    for panel in panels[len(series) :]:
        panel.set_visible(False)
    unit = f" ({unit_of(plot)})" if unit_of(plot) else ""
    figure.supxlabel(f"mean predicted probability{unit}", fontsize=9.5)
    figure.supylabel(f"mean observed{unit}, 95 % interval", fontsize=9.5)
    set_title(figure, plot, width)
    return figure


def _set_root_axes(panel: Any, limit: float, plot: Mapping[str, Any]) -> None:
    ticks: list[float] = []
    for tick in _TICKS:
        if tick <= limit and (
            not ticks or math.sqrt(tick / limit) - math.sqrt(ticks[-1] / limit) >= _SMALLEST_GAP
        ):
            ticks.append(tick)
    root = (lambda value: np.sqrt(np.maximum(value, 0)), np.square)
    panel.set_xscale("function", functions=root)
    panel.set_yscale("function", functions=root)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        format_axis(axis, plot, with_unit=False)
    panel.set_xlim(0, limit)
    panel.set_ylim(0, limit)
    panel.set_box_aspect(1)
    panel.grid(visible=True)


def _compose_bars(plot: Mapping[str, Any]) -> Figure:
    """Draw a panel for each group; the series' names are at the left of the first."""
    series, groups = plot["series"], plot["groups"]
    labels = [wrap(each["label"], _LABEL_WIDTH) for each in series]
    lines = sum(1 + label.count("\n") for label in labels)
    width = max(2.3 + 2.1 * len(groups), 5.5)
    figure = Figure(figsize=(width, 1.3 + 0.27 * lines), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    places = np.arange(len(series))[::-1]
    for index, (panel, group) in enumerate(zip(panels, groups, strict=True)):
        values, reach = intervals_of([each["estimates"][index] for each in series])
        colours = [ACCENT if each.get("highlight") else _BAR_COLOUR for each in series]
        panel.barh(places, values, color=colours, height=0.68)
        panel.errorbar(values, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.1)
        if not np.nan_to_num(values).any():  # else zeros would be in the middle of the panel
            panel.set_xlim(0, 1)
        ends = np.fmax(0.0, np.fmax(values, values + reach[1]))
        for place, value, end in zip(places, values, ends, strict=True):
            if np.isfinite(value):
                panel.annotate(
                    format_number(value, plot), (end, place),
                    (4, 0), textcoords="offset points", va="center", fontsize=8.5,
                )  # fmt: skip
        panel.set_title(group)
        panel.margins(x=0.22)  # room for the numbers
        panel.xaxis.set_major_locator(MaxNLocator(3))
        format_axis(panel.xaxis, plot)
        panel.grid(visible=True, axis="x")
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, labels, color=INK)
    set_title(figure, plot, width)
    return figure


def _compose_lines(plot: Mapping[str, Any]) -> Figure:
    """Draw lines with intervals, slightly apart so that the intervals do not overlap."""
    width = 7.5
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    x = np.array(plot["x"], dtype=np.float64)
    gap = np.diff(np.sort(x)).min() if len(x) > 1 else 1.0
    for index, series in enumerate(plot["series"]):
        apart = 0.12 * gap * (index - (len(plot["series"]) - 1) / 2)
        values, reach = intervals_of(series["estimates"])
        axes.errorbar(
            x + apart, values, yerr=reach, label=series["label"], capsize=2.5, linewidth=1.5,
            markersize=5, color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
        )  # fmt: skip
    if plot.get("mark") is not None:
        axes.axvline(plot["mark"], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        is_right = 2 * plot["mark"] > x.min() + x.max()  # put its label where there is room
        axes.annotate(
            plot.get("mark_label", ""), (plot["mark"], 1), (-4 if is_right else 4, -2), va="top",
            ha="right" if is_right else "left", fontsize=8.5,
            xycoords=("data", "axes fraction"), textcoords="offset points",
        )  # fmt: skip
        axes.margins(y=0.12)
    axes.xaxis.set_major_locator(FixedLocator(x.tolist()))
    format_axis(axes.xaxis, {"format": plot.get("x_format", "decimal")})
    format_axis(axes.yaxis, plot)
    axes.set_xlabel(plot["x_label"])
    axes.set_ylabel(plot["value_label"])
    axes.grid(visible=True, axis="y")
    if len(plot["series"]) > 1:
        figure.legend(loc="outside lower center", ncols=min(3, len(plot["series"])))
    set_title(figure, plot, width)
    return figure
