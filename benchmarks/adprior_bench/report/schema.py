"""The model of a report: plain dictionaries, which are also the contents of ``report.json``.

A report has a title, warnings, verdicts, notes and sections; a section has tables and plots in the
order in which they are shown. ``data`` holds values for programs and is not shown. Warnings,
verdicts, notes and the main tables come first; tables with ``detail`` come after all sections, in
files only. Notes are prose, one paragraph each; `backquotes` mark code, and there is no other
markup.

A cell is text, a number, an `Estimate` (or a mapping with ``value``, ``low`` and ``high``) or None.
None and NaN are shown as a dash. `adprior_bench.report.tables` builds tables from rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from adprior_bench.quality.intervals import Estimate

EstimateLike: TypeAlias = Estimate | Mapping[str, float]
Cell: TypeAlias = str | float | EstimateLike | None
Format = Literal["text", "count", "decimal", "percent", "points"]


class Numbers(TypedDict):
    """The format of numbers and estimates, ``text`` without one.

    ``count`` shows 12,345; ``decimal`` 0.123; ``percent`` shows 0.123 as 12.3 %; ``points`` shows a
    difference of two percentages, 0.012, as +1.2 pp. ``digits`` come after the decimal point.
    """

    format: NotRequired[Format]
    digits: NotRequired[int]
    signed: NotRequired[bool]


class Column(Numbers):
    """A table's column."""

    title: str


class Table(TypedDict):
    """Rows with one cell for each column; ``highlight`` holds positions of emphasised rows."""

    kind: Literal["table"]
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    detail: NotRequired[bool]
    highlight: NotRequired[Sequence[int]]
    note: NotRequired[str]


class _Plot(Numbers):
    name: str  # of the PNG file
    title: str


class ReliabilityPlot(_Plot):
    """Mean predicted against mean observed probability, one panel for each series.

    A series has a ``label`` and ``bins`` with ``predicted`` and ``observed``.
    """

    kind: Literal["reliability"]
    series: Sequence[Mapping[str, Any]]


class Series(TypedDict):
    """One estimate for each group of bars, or for each x of a line."""

    label: str
    estimates: Sequence[EstimateLike | None]
    highlight: NotRequired[bool]


class BarsPlot(_Plot):
    """One panel for each group; each panel has a bar with its interval for each series."""

    kind: Literal["bars"]
    groups: Sequence[str]
    series: Sequence[Series]


class LinesPlot(_Plot):
    """Estimates against a number, one line for each series; ``mark`` is an x with a label."""

    kind: Literal["lines"]
    x: Sequence[float]
    x_label: str
    x_format: NotRequired[Format]
    value_label: str
    series: Sequence[Series]
    mark: NotRequired[float]
    mark_label: NotRequired[str]


Content: TypeAlias = Table | ReliabilityPlot | BarsPlot | LinesPlot


class Section(TypedDict):
    """A part of a report."""

    title: str
    notes: Sequence[str]
    content: Sequence[Content]


class Verdict(TypedDict):
    """A question, its answer (``yes``, ``partly``, ``no``, ...) and the figures behind it."""

    question: str
    answer: str
    text: str


class Report(TypedDict):
    """A whole report; see the module's documentation."""

    title: str
    warnings: NotRequired[Sequence[str]]
    verdict: NotRequired[Sequence[Verdict]]
    notes: Sequence[str]
    sections: Sequence[Section]
    data: NotRequired[Mapping[str, Any]]
