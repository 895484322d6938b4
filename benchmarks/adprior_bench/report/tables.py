"""Tables of a report, built from rows that name their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from adprior_bench.report.schema import Numbers, Table

Row = Mapping[str, Any]
COUNT: Final[Numbers] = {"format": "count"}


def decimal(digits: int) -> Numbers:
    """Return the format of plain numbers."""
    return {"format": "decimal", "digits": digits}


def percent(digits: int, *, signed: bool = False) -> Numbers:
    """Return the format of shares, or of relative changes if ``signed``."""
    return {"format": "percent", "digits": digits, "signed": signed}


def points(digits: int) -> Numbers:
    """Return the format of differences between shares, in percentage points."""
    return {"format": "points", "digits": digits, "signed": True}


def make_table(
    title: str,
    rows: Sequence[Row],
    formats: Mapping[str, Numbers] | None = None,
    *,
    highlight: Callable[[Row], bool] | None = None,
    note: str = "",
    detail: bool = False,
) -> Table:
    """Return a table whose columns are the names in the first row.

    Args:
        title: Title of the table.
        rows: One row or more; all have the same names.
        formats: Format of each column; a column without one is text.
        highlight: Selects the rows to emphasise.
        note: Shown below the table.
        detail: Show it after all sections, in files only.
    """
    formats = formats or {}
    names = list(rows[0])
    return {
        "kind": "table",
        "title": title,
        "columns": [{"title": name, **formats.get(name, {})} for name in names],
        "rows": [[row[name] for name in names] for row in rows],
        "highlight": [i for i, row in enumerate(rows) if highlight is not None and highlight(row)],
        "note": note,
        "detail": detail,
    }
