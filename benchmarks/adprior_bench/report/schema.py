"""What a report is made of: plain dictionaries that any part of an evaluation can fill.

A report, as in ``report.json``::

    {"title": "...",
     "warnings": ["what must be known before any figure", ...],             # optional
     "verdict": [{"question": "...", "answer": "yes", "text": "..."}, ...],  # optional
     "notes": ["what stands in for what", ...],
     "sections": [
       {"title": "...", "notes": ["...", ...],
        "content": [                                    # shown in this order
          {"kind": "table", "title": "...",
           "columns": [{"title": "ranker"},             # format "text" when none is given
                       {"title": "recall@10", "format": "percent"},
                       {"title": "users", "format": "count"}],
           "rows": [["popularity", {"value": 0.062, "low": 0.042, "high": 0.087}, 85], ...],
           "highlight": [0],                            # optional: rows to be seen first
           "detail": true,                              # optional: not among what is read first
           "note": "..."},                              # optional: below the table
          {"kind": "reliability", "name": "reliability", ...},  # plots: `ReliabilityPlot`,
          {"kind": "bars", ...}, {"kind": "lines", ...}, {"kind": "forest", ...}]}],
     "data": {...}}                                     # optional: for machines, not shown

A cell is text, a number, an estimate (`intervals.Estimate`, or a dictionary with ``value``, ``low``
and ``high``) or None, which is shown as a dash, as is NaN. Formats of numbers and estimates, each
with ``digits`` after the point if given: ``count`` 12,345; ``decimal`` 0.123; ``percent`` 0.123 as
12.3 %; ``points`` a difference of two percentages, 0.012 as +1.2 pp. ``signed`` shows a plus too.

What is read first is shown first: warnings, the verdict, notes, every section without its details;
the details come after all sections, in files only. Notes are prose, a paragraph each; `backquotes`
set code, and nothing else is markup. A plot's ``name`` is that of its PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from adprior_bench.quality.intervals import Estimate

EstimateLike: TypeAlias = Estimate | Mapping[str, float]
Cell: TypeAlias = str | float | EstimateLike | None
Format = Literal["text", "count", "decimal", "percent", "points"]


class Numbers(TypedDict):
    """How numbers are shown."""

    format: NotRequired[Format]
    digits: NotRequired[int]
    signed: NotRequired[bool]


class Column(Numbers):
    """A table's column."""

    title: str


class Table(TypedDict):
    """Rows of cells, as many as there are columns."""

    kind: Literal["table"]
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    detail: NotRequired[bool]
    highlight: NotRequired[Sequence[int]]
    note: NotRequired[str]


class _Plot(Numbers):
    name: str
    title: str
    detail: NotRequired[bool]
    caption: NotRequired[str]


class ReliabilitySeries(TypedDict):
    """One panel: bins with ``predicted``, ``observed`` (an estimate) and ``pairs``."""

    label: str
    bins: Sequence[Mapping[str, Any]]
    note: NotRequired[str]


class ReliabilityPlot(_Plot):
    """Mean predicted against mean observed, a panel for each series."""

    kind: Literal["reliability"]
    series: Sequence[ReliabilitySeries]


class Series(TypedDict):
    """Estimates of one thing, one for each group of bars or each x."""

    label: str
    estimates: Sequence[EstimateLike | None]
    highlight: NotRequired[bool]


class BarsPlot(_Plot):
    """A panel for each group, in it a bar with its interval for each series."""

    kind: Literal["bars"]
    groups: Sequence[str]
    series: Sequence[Series]


class LinesPlot(_Plot):
    """Estimates against a number, a line for each series; ``mark`` sets one x apart.

    Attributes:
        x_format: How ``x`` is shown.
    """

    kind: Literal["lines"]
    x: Sequence[float]
    x_label: str
    x_format: NotRequired[Format]
    value_label: str
    series: Sequence[Series]
    mark: NotRequired[float]
    mark_label: NotRequired[str]


class ForestRow(TypedDict):
    """One estimate of a forest plot."""

    label: str
    estimate: EstimateLike | None
    highlight: NotRequired[bool]


class ForestGroup(TypedDict):
    """Rows below a heading."""

    title: str
    rows: Sequence[ForestRow]


class ForestPlot(_Plot):
    """Estimates below one another, with lines at values of reference such as 0.

    Attributes:
        references: Each with ``value`` and ``label``.
    """

    kind: Literal["forest"]
    value_label: str
    groups: Sequence[ForestGroup]
    references: NotRequired[Sequence[Mapping[str, Any]]]


Content: TypeAlias = Table | ReliabilityPlot | BarsPlot | LinesPlot | ForestPlot


class Section(TypedDict):
    """A part of a report."""

    title: str
    notes: Sequence[str]
    content: Sequence[Content]


class Verdict(TypedDict):
    """A question, its answer (``yes``, ``partly``, ``no`` ...), and the figures it rests on."""

    question: str
    answer: str
    text: str


class Report(TypedDict):
    """See the module."""

    title: str
    warnings: NotRequired[Sequence[str]]
    verdict: NotRequired[Sequence[Verdict]]
    notes: Sequence[str]
    sections: Sequence[Section]
    data: NotRequired[Mapping[str, Any]]
