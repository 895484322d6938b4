"""A report as one HTML page that needs no other file: it contains its styles and plots."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from adprior_bench.report.cells import is_text, split_cell
from adprior_bench.report.plain import detail_sections, main_sections, opening_lines

_STYLE: Final = """
body { margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.5rem 5rem; background: #fff;
  color: #1f2328; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin-top: 3.2rem; padding-top: 1.2rem; border-top: 1px solid #d8dee4; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
p.opening { border-left: .25rem solid #0b5fa5; padding-left: .8rem; }
p.note, td small { color: #59636e; font-size: .9rem; }
nav { margin-top: 1.5rem; columns: 16rem; }
nav a { display: block; color: #0b5fa5; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; vertical-align: bottom; border-bottom: 2px solid #8c959f; }
td { border-bottom: 1px solid #e4e8ec; vertical-align: baseline; }
th, td { padding: .35rem .9rem .35rem 0; }
td:first-child { min-width: 11rem; }
th.number, td.number { text-align: right; padding-left: .6rem; white-space: nowrap; }
td small { display: block; font-weight: 400; line-height: 1.25; }
tr.strong td { background: #eef5fb; font-weight: 600; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; }
"""


def report_page(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """Return a plain report as a page.

    ``images`` has each plot's PNG by the plot's name.
    """
    title = escape(report["title"])
    sections = list(enumerate([*main_sections(report), *detail_sections(report)]))
    links = (f'<a href="#section-{place}">{escape(each["title"])}</a>' for place, each in sections)
    lines = [
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>",
        *(
            f'<p class="opening"><strong>{escape(strong)}</strong> {_prose(text)}</p>'
            for strong, text in opening_lines(report)
        ),
        *(_note(note) for note in report["notes"]),
        f"<nav>{''.join(links)}</nav>",
    ]
    for place, section in sections:
        lines.append(f'<h2 id="section-{place}">{escape(section["title"])}</h2>')
        lines += [f"<p>{_prose(note)}</p>" for note in section["notes"]]
        for item in section["content"]:
            if item["kind"] == "table":
                lines += _table(item)
            else:
                source = base64.b64encode(images[item["name"]]).decode("ascii")
                lines.append(
                    f'<figure><img src="data:image/png;base64,{source}" '
                    f'alt="{escape(item["title"])}"></figure>'
                )
    return "\n".join([*lines, "</body></html>\n"])


def _table(table: Mapping[str, Any]) -> Iterator[str]:
    columns = table["columns"]
    kinds = ["" if is_text(column) else ' class="number"' for column in columns]
    heads = (
        f"<th{kind}>{escape(column['title'])}</th>"
        for kind, column in zip(kinds, columns, strict=True)
    )
    yield f'<h3>{escape(table["title"])}</h3>\n<div class="wide"><table>'
    yield f"<thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for index, row in enumerate(table["rows"]):
        cells = (
            f"<td{kind}>{_cell(cell, column)}</td>"
            for kind, cell, column in zip(kinds, row, columns, strict=True)
        )
        style = ' class="strong"' if index in table.get("highlight", ()) else ""
        yield f"<tr{style}>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    if table.get("note"):
        yield _note(table["note"])


def _cell(cell: Any, column: Mapping[str, Any]) -> str:
    value, interval = split_cell(cell, column)
    return escape(value) + (f" <small>{escape(interval)}</small>" if interval else "")


def _note(text: str) -> str:
    return f'<p class="note">{_prose(text)}</p>'


def _prose(text: str) -> str:
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)
