"""Plain-text tables with aligned columns, in every script."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

Column = tuple[str, Literal["left", "right"]]
"""A column's heading and its alignment."""

_GAP: Final = "  "
_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def format_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return headings and rows as lines of aligned columns, without trailing blanks.

    Characters that move the cursor or cannot be shown become U+FFFD.
    """
    lines = [[heading for heading, _ in columns]]
    lines += [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(_display_width, cells)) for cells in zip(*lines, strict=True)]
    shown = []
    for line in lines:
        cells = [
            _pad(cell, width, side)
            for cell, width, (_, side) in zip(line, widths, columns, strict=True)
        ]
        shown.append(_GAP.join(cells).rstrip())
    return "\n".join(shown)


def format_percent(probability: float) -> str:
    """Return a probability as a percentage; a tiny one keeps two digits, as in ``0.00031 %``."""
    percent = 100.0 * probability
    if percent >= 0.1 or percent == 0.0:
        return f"{percent:.1f} %"
    return f"{percent:.2g} %"


def format_bytes(count: int) -> str:
    """Return a number of bytes with three digits and a unit, as in ``12.4 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or value >= 99.95 else 1
    return f"{value:.{digits}f} {units[0]}"


def format_bar(fraction: float, *, width: int = 20) -> str:
    """Return a bar of ``fraction`` of ``width`` blocks, at least one block above zero."""
    blocks = round(min(max(fraction, 0.0), 1.0) * width)
    return "█" * max(blocks, 1 if fraction > 0.0 else 0)


def format_sparkline(values: Sequence[float], *, width: int = 40) -> str:
    """Return values as a line of at most ``width`` blocks, the lowest value the lowest block.

    More values than blocks: each block is the mean of consecutive values.
    """
    blocks = min(width, len(values))
    ends = [len(values) * place // blocks for place in range(blocks + 1)] if blocks else [0]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((mean - low) / span * top) if span else 0] for mean in means)


def _pad(cell: str, width: int, side: Literal["left", "right"]) -> str:
    padding = " " * (width - _display_width(cell))
    return cell + padding if side == "left" else padding + cell


def _printable(cell: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell)


def _display_width(cell: str) -> int:
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in cell
    )
