"""A report as one HTML page that needs no other file: styles and plots are inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from adprior_bench.report.cells import split_cell
from adprior_bench.report.parts import detail_sections, main_sections, opening_lines

_STYLE: Final = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.5rem 5rem; background: #fff;
  color: #1f2328; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid #d8dee4; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
p.opening { border-left: .25rem solid #0b5fa5; padding-left: .8rem; }
p.note { color: #59636e; font-size: .9rem; }
nav { margin: 1.5rem 0 0; font-size: .95rem; columns: 16rem; }
nav a { display: block; color: #0b5fa5; text-decoration: none; padding: .1rem 0; }
nav a:hover { text-decoration: underline; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; background: #f3f5f7;
  padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; vertical-align: bottom;
  border-bottom: 2px solid #8c959f; }
td { border-bottom: 1px solid #e4e8ec; vertical-align: baseline; }
th, td { padding: .35rem .9rem .35rem 0; }
td:first-child { min-width: 11rem; }
th.number, td.number { text-align: right; padding-left: .6rem; white-space: nowrap; }
td small { display: block; color: #59636e; font-size: .82em; line-height: 1.25; }
tr.strong td { background: #eef5fb; font-weight: 600; }
tr.strong td small { font-weight: 400; }
tr.strong td:first-child { box-shadow: -.6rem 0 0 #eef5fb; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { color: #59636e; font-size: .9rem; max-width: 46rem; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""


def report_page(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """Return a plain report as a page.

    Args:
        report: See `schema`.
        images: Each plot's PNG, by the plot's name.
    """
    shown = [*main_sections(report), *detail_sections(report)]
    sections = [_section(index, section, images) for index, section in enumerate(shown)]
    links = [
        f'<a href="#section-{index}">{escape(section["title"])}</a>'
        for index, section in enumerate(shown)
    ]
    title = escape(report["title"])
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style></head>",
        "<body>",
        f"<h1>{title}</h1>",
        *(
            f'<p class="opening"><strong>{escape(strong)}</strong> {_prose(text)}</p>'
            for strong, text in opening_lines(report)
        ),
        *(_paragraph(note, "note") for note in report["notes"]),
        f"<nav>{''.join(links)}</nav>",
        *sections,
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _section(index: int, section: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    lines = [f'<h2 id="section-{index}">{escape(section["title"])}</h2>']
    lines += [_paragraph(note) for note in section["notes"]]
    for item in section["content"]:
        lines.append(
            _table(item) if item["kind"] == "table" else _figure(item, images[item["name"]])
        )
    return "\n".join(lines)


def _table(table: Mapping[str, Any]) -> str:
    columns = table["columns"]
    kinds = [
        "" if column.get("format", "text") == "text" else ' class="number"' for column in columns
    ]
    heads = [
        f"<th{kind}>{escape(column['title'])}</th>"
        for kind, column in zip(kinds, columns, strict=True)
    ]
    strong = set(table.get("highlight", ()))
    lines = [f"<h3>{escape(table['title'])}</h3>", '<div class="wide"><table>']
    lines.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for index, row in enumerate(table["rows"]):
        cells = [
            f"<td{kind}>{_cell(cell, column)}</td>"
            for kind, cell, column in zip(kinds, row, columns, strict=True)
        ]
        style = ' class="strong"' if index in strong else ""
        lines.append(f"<tr{style}>{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    lines += [_paragraph(table["note"], "note")] if table.get("note") else []
    return "\n".join(lines)


def _cell(cell: Any, column: Mapping[str, Any]) -> str:
    value, interval = split_cell(cell, column)
    return escape(value) + (f" <small>{escape(interval)}</small>" if interval else "")


def _figure(plot: Mapping[str, Any], image: bytes) -> str:
    source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
    caption = plot.get("caption", "")
    return (
        f'<figure><img src="{source}" alt="{escape(plot["title"])}">'
        + (f"<figcaption>{_prose(caption)}</figcaption>" if caption else "")
        + "</figure>"
    )


def _paragraph(text: str, style: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    return f"<p{attribute}>{_prose(text)}</p>"


def _prose(text: str) -> str:
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)
