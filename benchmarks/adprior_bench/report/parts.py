"""The order of a report: the main parts come first, the look-up tables last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def opening_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what stands above all tables: what is emphasised, and the rest of the line."""
    for warning in report.get("warnings", ()):
        yield "Note.", warning
    for each in report.get("verdict", ()):
        yield f"{each['question']} {each['answer'].capitalize()}.", each["text"]


def main_sections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections without their details; one that has nothing else is left out."""
    found = []
    for section in report["sections"]:
        content = [item for item in section["content"] if not item.get("detail")]
        if content or not section["content"]:
            found.append({**section, "content": content})
    return found


def detail_sections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the details of each section; notes stand there only where all of it is detail."""
    found = []
    for section in report["sections"]:
        content = [item for item in section["content"] if item.get("detail")]
        if not content:
            continue
        whole = len(content) == len(section["content"])
        title = section["title"] if whole else f"{section['title']}: details"
        notes = section["notes"] if whole else []
        found.append({**section, "title": title, "notes": notes, "content": content})
    return found
