"""Compares what a page shows with what a command prints: the words, not the figures."""

from __future__ import annotations

import re


def strip_figures(line: str) -> str:
    """Return a line without numbers, curves, bundles' ids, units of time and columns' widths."""
    line = re.sub(r"[█▇▆▅▄▃▂▁]+", "▁", line)
    line = re.sub(r"\b[0-9a-f]{12}\b", "#", line)
    line = re.sub(r"[-+]?\d[\d.,:e+%-]*", "#", line)
    line = re.sub(r"# (?:s|minutes|hours)\b", "# s", line)
    return " ".join(line.split())
