"""Plots of named estimates in rows: bars in panels, and forest plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adprior_bench.report.cells import cell_text, format_number
from adprior_bench.report.plot_style import (
    ACCENT,
    COLOURS,
    GREY,
    INK,
    format_axis,
    intervals_of,
    set_title,
    wrap,
)

_LABEL_WIDTH: Final = 36
_BAR_COLOUR: Final = "#9CC3DD"


def compose_bars(plot: Mapping[str, Any]) -> Figure:
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


def compose_forest(plot: Mapping[str, Any]) -> Figure:
    """Draw estimates with intervals in rows under headings, and their numbers at the right."""
    rows = [row for group in plot["groups"] for row in (group, *group["rows"])]
    labels = [wrap(row.get("label", row.get("title", "")), _LABEL_WIDTH + 8) for row in rows]
    lines = sum(1 + label.count("\n") for label in labels)
    width = 8.5
    figure = Figure(figsize=(width, 1.7 + 0.27 * lines), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    values, reach = intervals_of([row.get("estimate") for row in rows])
    for place, row, value, sides in zip(places, rows, values, reach.T, strict=True):
        if "rows" in row:
            continue
        colour = ACCENT if row.get("highlight") else COLOURS[0]
        axes.errorbar(
            value, place, xerr=sides[:, np.newaxis], fmt="o", markersize=5.5, linewidth=1.6,
            color=colour, capsize=2.5,
        )  # fmt: skip
        axes.annotate(
            cell_text(row["estimate"], plot), (1.02, place), va="center", fontsize=8.5,
            xycoords=("axes fraction", "data"), annotation_clip=False,
        )  # fmt: skip
    for reference in plot.get("references", ()):
        axes.axvline(
            reference["value"], color=GREY, linewidth=1.2, zorder=0, label=reference["label"]
        )
        figure.legend(loc="outside lower right", fontsize=8.5)
    axes.set_yticks(places, labels, color=INK)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if "rows" in row else "normal")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    format_axis(axes.xaxis, plot)
    axes.set_xlabel(plot["value_label"])
    axes.grid(visible=True, axis="x")
    set_title(figure, plot, width)
    return figure
