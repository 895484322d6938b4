"""Shows the steps of a rollout as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from adprior_client.rollout.rules import (
    CALIBRATION,
    CERTIFICATES,
    DRIFT,
    ERRORS,
    LATENCY,
    TAIL,
    Judgement,
)
from adprior_client.rollout.steps import Step
from adprior_runtime.terminal.tables import Column, format_percent, format_table

_COLUMNS: Final[tuple[Column, ...]] = (
    ("rule", "left"),
    ("stable", "right"),
    ("canary", "right"),
    ("compared", "right"),
    ("interval", "right"),
    ("limit", "right"),
    ("", "left"),
)


def _points(value: float) -> str:
    return f"{100 * value:+.2f} points"


def _times(value: float) -> str:
    return f"{value:.2f} times"


def _index(value: float) -> str:
    return f"{value:.3f}"


def _milliseconds(value: float) -> str:
    return f"{value:,.1f} ms"


def _of_expected(value: float) -> str:
    return f"{value:.2f} of expected"


_Format = Callable[[float], str]
_FORMATS: Final[Mapping[str, tuple[_Format, _Format]]] = {
    ERRORS: (format_percent, _points),
    LATENCY: (_milliseconds, _times),
    TAIL: (_milliseconds, _times),
    CERTIFICATES: (format_percent, _points),
    DRIFT: (_index, _index),
    CALIBRATION: (_of_expected, _times),
}
"""How each rule's figures are shown: those of a group, and their comparison."""


def format_step(step: Step) -> str:
    """Return a step as a line and a table."""
    stable, canary = step.requests
    heading = (
        f"{format_percent(step.share)} of the users on the canary, {step.seconds:.0f} s: "
        f"{stable:,} requests of the stable servers, {canary:,} of the canary"
    )
    rows = [_row(judgement) for judgement in step.judgements]
    return f"{heading}\n{format_table(_COLUMNS, rows)}\n{step.reason or step.outcome}\n"


def _row(judgement: Judgement) -> tuple[str, ...]:
    figure = judgement.figure
    of_group, of_both = _FORMATS[judgement.rule]

    def show(value: float, form: _Format) -> str:
        return form(value) if math.isfinite(value) else "-"

    interval = f"[{show(figure.low, of_both)}, {show(figure.high, of_both)}]"
    return (
        judgement.rule,
        show(figure.stable, of_group),
        show(figure.canary, of_group),
        show(figure.compared, of_both),
        interval,
        of_both(judgement.limit),
        str(judgement.verdict),
    )
