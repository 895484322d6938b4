"""A report as JSON values, and the order in which its parts are shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from adprior_bench.quality.intervals import Estimate


def plain(value: Any) -> Any:
    """Return a report's values for JSON: estimates as dictionaries, NaN and infinities as None."""
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


def opening_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the emphasised part and the rest of each line above the tables."""
    for warning in report.get("warnings", ()):
        yield "Note.", warning
    for each in report.get("verdict", ()):
        yield f"{each['question']} {each['answer'].capitalize()}.", each["text"]


def main_sections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections without their details; a section that has only details is left out."""
    return [
        {**section, "content": content}
        for section in report["sections"]
        if (content := [item for item in section["content"] if not item.get("detail")])
        or not section["content"]
    ]


def detail_sections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each section's details; a section that has only details keeps its title and notes."""
    found = []
    for section in report["sections"]:
        content = [item for item in section["content"] if item.get("detail")]
        if len(content) == len(section["content"]):
            found.append({**section, "content": content})
        elif content:
            title = f"{section['title']}: details"
            found.append({"title": title, "notes": [], "content": content})
    return [section for section in found if section["content"]]
