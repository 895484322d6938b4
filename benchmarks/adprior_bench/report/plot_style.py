"""Colours, fonts and axes of all plots, and the conversion of figures to PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from adprior_bench.quality.histories import Float64Array
from adprior_bench.report.cells import unit_of

# Okabe and Ito's colours are distinct for all common kinds of colour vision.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
ACCENT: Final = "#D55E00"
GREY: Final = "#7A8793"
INK: Final = "#1F2328"

_DPI: Final = 150
_SETTINGS: Final = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8C959F",
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#E4E8EC",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "xtick.color": "#59636E",
    "ytick.color": "#59636E",
    "legend.frameon": False,
}


def png(plot: Mapping[str, Any], compose: Callable[[Mapping[str, Any]], Figure]) -> bytes:
    """Return the figure that ``compose`` draws as a PNG; the same plot gives the same bytes."""
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type, unused-ignore]
        figure = compose(plot)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def set_title(figure: Figure, plot: Mapping[str, Any], width_inches: float) -> None:
    """Put the plot's title at the left, on as many lines as it needs."""
    title = wrap(plot["title"], int(width_inches * 9))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")


def wrap(text: str, width: int) -> str:
    """Break a label into lines."""
    return "\n".join(textwrap.wrap(text, width)) or text


def format_axis(axis: Any, plot: Mapping[str, Any], *, with_unit: bool = True) -> None:
    """Label an axis in the plot's format, with no more digits than necessary."""
    unit = unit_of(plot)
    shown_unit = f" {unit}" if unit and with_unit else ""

    def show(value: float, _: Any) -> str:
        shown = f"{value * (100 if unit else 1):.6g}"
        signed = plot.get("signed", plot.get("format") == "points") and value > 0
        return ("+" if signed else "") + shown + shown_unit

    axis.set_major_formatter(FuncFormatter(show))


def intervals_of(estimates: list[Any]) -> tuple[Float64Array, Float64Array]:
    """Return values [n] and the lengths of their intervals to both sides [2, n]; NaN for None."""
    ends = np.array(
        [
            [np.nan if each is None else each.get(end, np.nan) for end in ("value", "low", "high")]
            for each in estimates
        ],
        dtype=np.float64,
    )
    values = ends[:, 0]
    return values, np.maximum([values - ends[:, 1], ends[:, 2] - values], 0.0)
