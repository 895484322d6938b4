"""The formats of numbers and estimates, in tables and in plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

DASH: Final = "\N{EN DASH}"
_DIGITS: Final = {"text": 3, "count": 0, "decimal": 3, "percent": 1, "points": 1}
_UNITS: Final = {"percent": "%", "points": "pp"}


def unit_of(numbers: Mapping[str, Any]) -> str:
    """Return the unit of a column or a plot, empty without one."""
    return _UNITS.get(numbers.get("format", "text"), "")


def is_text(column: Mapping[str, Any]) -> bool:
    """Return whether a column holds text, which is aligned to the left."""
    return bool(column.get("format", "text") == "text")


def format_number(value: float, numbers: Mapping[str, Any]) -> str:
    """Return a number without its unit."""
    form = numbers.get("format", "text")
    if form == "text" and isinstance(value, int):
        return str(value)
    signed = numbers.get("signed", form == "points")
    digits = numbers.get("digits", _DIGITS[form])
    shown = f"{value * (100 if unit_of(numbers) else 1):{'+' if signed else ''},.{digits}f}"
    # A number that rounds to 0 has no sign.
    return shown if any(digit in shown for digit in "123456789") else shown.lstrip("+-")


def split_cell(cell: Any, numbers: Mapping[str, Any]) -> tuple[str, str]:
    """Return a plain cell's value with its unit, and its interval, empty without one."""
    if cell is None:
        return DASH, ""
    if isinstance(cell, str):
        return cell, ""
    estimate = cell if isinstance(cell, Mapping) else {"value": cell}
    value = f"{format_number(estimate['value'], numbers)} {unit_of(numbers)}".rstrip()
    if estimate.get("low") is None or estimate.get("high") is None:
        return value, ""
    low, high = (format_number(estimate[end], numbers) for end in ("low", "high"))
    return value, f"[{low}, {high}]"


def cell_text(cell: Any, numbers: Mapping[str, Any]) -> str:
    """Return a plain cell on one line: ``17.1 % [13.4, 21.6]``."""
    return " ".join(filter(None, split_cell(cell, numbers)))
