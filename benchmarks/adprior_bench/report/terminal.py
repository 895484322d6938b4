"""Reports and tables of figures for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from adprior_bench.report.cells import cell_text, is_text
from adprior_bench.report.plain import detail_sections, main_sections, opening_lines
from adprior_runtime.terminal.tables import Column, format_table

_WIDTH: Final = 100


def report_text(report: Mapping[str, Any], directory: Path | None = None) -> str:
    """Return a plain report as text, without plots, details and the sections' notes.

    ``directory`` is where the report was written, None if it was not.
    """
    lines = [report["title"], "=" * len(report["title"])]
    lines += [_wrap(f"{strong} {text}") for strong, text in opening_lines(report)]
    lines += ["", *map(_wrap, report["notes"])]
    for section in main_sections(report):
        lines += ["", section["title"], "-" * len(section["title"])]
        for item in section["content"]:
            if item["kind"] == "table":
                lines += ["", item["title"], "", _table_text(item)]
                lines += [_wrap(item["note"])] if item.get("note") else []
    more = sum(len(section["content"]) for section in detail_sections(report))
    where = "--output DIR writes them" if directory is None else f"in {directory / 'report.html'}"
    lines += ["", f"{more} more tables, all plots: {where}" if more else f"All plots: {where}"]
    return "\n".join(lines)


def figures_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return some columns of rows as a table; a missing value is an empty cell."""
    texts = {name for name in names for row in rows if isinstance(row.get(name), str)}
    columns: list[Column] = [
        (name.replace("_", " "), "left" if name in texts else "right") for name in names
    ]
    return format_table(columns, [[_figure(row.get(name)) for name in names] for row in rows])


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def _table_text(table: Mapping[str, Any]) -> str:
    """Return a plain table, aligned; a star marks highlighted rows."""
    columns: list[Column] = [
        (column["title"], "left" if is_text(column) else "right") for column in table["columns"]
    ]
    rows = [
        [cell_text(cell, column) for cell, column in zip(row, table["columns"], strict=True)]
        for row in table["rows"]
    ]
    for index in table.get("highlight", ()):
        rows[index][0] += " *"
    legend = "\n* the evaluated model, or the chosen setting" if table.get("highlight") else ""
    return format_table(columns, rows) + legend


def _wrap(note: str) -> str:
    return textwrap.fill(note, _WIDTH)
