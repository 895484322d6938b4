"""A report as plain values, checked before any of it is shown."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from adprior_bench.quality.intervals import Estimate
from adprior_runtime.errors import InvalidInputError

_FORMATS: Final = ("text", "count", "decimal", "percent", "points")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LISTS: Final = {"reliability": "series", "bars": "series", "lines": "series", "forest": "groups"}


def plain(value: Any) -> Any:
    """Return a report as JSON has it: estimates as dictionaries, NaN and infinities as None."""
    if isinstance(value, Estimate):
        return plain(dataclasses.asdict(value)) if math.isfinite(value.value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def contents(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a report's tables and plots, each with what to call it in a message."""
    for section in report["sections"]:
        for item in section["content"]:
            yield f"section {section['title']!r}, {item['kind']} {item['title']!r}", item


def check(report: Mapping[str, Any]) -> None:
    """Refuse a plain report that cannot be shown.

    Raises:
        InvalidInputError: Naming the table or plot.
    """
    names: set[str] = set()
    for place, item in contents(report):
        if item["kind"] == "table":
            _check_table(place, item)
            continue
        if item["kind"] not in _LISTS:
            raise InvalidInputError(f"{place}: unknown kind, expected table, {', '.join(_LISTS)}")
        name = item["name"]
        if not _NAME.fullmatch(name) or name in names:
            raise InvalidInputError(
                f"{place}: name {name!r}, expected one of its own of a-z, 0-9, - and _"
            )
        names.add(name)
        _check_plot(place, item)


def _check_table(place: str, table: Mapping[str, Any]) -> None:
    for column in table["columns"]:
        _check_format(f"{place}, column {column['title']!r}", column)
    for index, row in enumerate(table["rows"]):
        if len(row) != len(table["columns"]):
            raise InvalidInputError(
                f"{place}, row {index} (from 0): {len(row)} cells, expected {len(table['columns'])}"
            )
    for index in table.get("highlight", ()):
        if not 0 <= index < len(table["rows"]):
            raise InvalidInputError(
                f"{place}: row {index} (from 0) is highlighted, but there are {len(table['rows'])}"
            )


def _check_plot(place: str, plot: Mapping[str, Any]) -> None:
    _check_format(place, plot)
    if not plot[_LISTS[plot["kind"]]]:
        raise InvalidInputError(f"{place}: nothing to draw, expected {_LISTS[plot['kind']]}")
    if plot["kind"] not in ("bars", "lines"):
        return
    expected = len(plot["groups" if plot["kind"] == "bars" else "x"])
    for series in plot["series"]:
        if len(series["estimates"]) != expected:
            raise InvalidInputError(
                f"{place}, series {series['label']!r}: {len(series['estimates'])} estimates, "
                f"expected {expected}"
            )


def _check_format(place: str, numbers: Mapping[str, Any]) -> None:
    if numbers.get("format", "text") not in _FORMATS:
        raise InvalidInputError(
            f"{place}: format {numbers['format']!r}, expected one of {', '.join(_FORMATS)}"
        )
