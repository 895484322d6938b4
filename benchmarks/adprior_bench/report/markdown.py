"""A report in Markdown, with its plots in files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from adprior_bench.report.cells import cell_text, is_text
from adprior_bench.report.plain import detail_sections, main_sections, opening_lines

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def report_markdown(report: Mapping[str, Any]) -> str:
    """Return a plain report as GitHub's Markdown; plots are linked by their names."""
    blocks = [f"# {_escape(report['title'])}"]
    blocks += [f"**{_escape(strong)}** {_note(text)}" for strong, text in opening_lines(report)]
    blocks += map(_note, report["notes"])
    for section in [*main_sections(report), *detail_sections(report)]:
        blocks += [f"## {_escape(section['title'])}", *map(_note, section["notes"])]
        for item in section["content"]:
            title = _escape(item["title"])
            is_table = item["kind"] == "table"
            body = "\n".join(_table(item)) if is_table else f"![{title}]({item['name']}.png)"
            blocks += [f"### {title}", body]
            blocks += [_note(item["note"])] if item.get("note") else []
    return "\n\n".join(blocks) + "\n"


def _table(table: Mapping[str, Any]) -> Iterator[str]:
    columns = table["columns"]
    yield _row([_escape(column["title"]) for column in columns])
    yield _row([":--" if is_text(column) else "--:" for column in columns])
    strong = set(table.get("highlight", ()))
    for index, row in enumerate(table["rows"]):
        cells = [
            _escape(cell) if isinstance(cell, str) else cell_text(cell, column)
            for cell, column in zip(row, columns, strict=True)
        ]
        yield _row([f"**{cell}**" if cell and index in strong else cell for cell in cells])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _note(text: str) -> str:
    """Escape the characters that start HTML, except in code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _escape(text)
    parts[::2] = [part.replace("&", "&amp;").replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
