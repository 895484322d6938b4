"""The rules of a rollout: how much worse the canary may be, and what follows from the counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from adprior_client.rollout.comparison import (
    Figure,
    Looks,
    compare_certificates,
    compare_drift,
    compare_errors,
    compare_tails,
    compare_times,
    have_times,
)
from adprior_client.rollout.outcomes import Outcomes, compare_calibration

LEVEL: Final = 0.95
"""The level of the intervals at the end of a hold."""


_LEAST_REQUESTS: Final = 10
"""With fewer requests, an interval of the error rate says too little."""


class Verdict(StrEnum):
    """What the interval says of a rule.

    Attributes:
        KEPT: The whole interval is within the limit.
        BROKEN: The whole interval is beyond it.
        OPEN: The limit is within the interval: more requests are needed.
    """

    KEPT = "kept"
    BROKEN = "broken"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much worse the canary may be.

    Attributes:
        error_increase: Most by which its share of failed requests may be above the stable one.
        latency_ratio: Most that its mean time may be, in times of the stable one.
        tail_ratio: Most that the 95th percentile of its searches may be, in times of the stable
            one.
        exact_drop: Most by which its share of certified forecasts may be below the stable one.
        psi: Largest population stability index between the forecasts of both.
        miscalibration: How many times as far from the observed outcomes as the stable one its
            probabilities may be.
        requests: Fewest requests of each group.
    """

    error_increase: float = 0.01
    latency_ratio: float = 1.5
    tail_ratio: float = 1.5
    exact_drop: float = 0.1
    psi: float = 0.1
    miscalibration: float = 1.25
    requests: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One rule, applied.

    Attributes:
        rule: The rule's name.
        figure: What was compared.
        limit: The limit of ``figure.compared``.
        verdict: What follows.
    """

    rule: str
    figure: Figure
    limit: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Return a flat document."""
        figure = self.figure
        return {
            "rule": self.rule,
            "stable": figure.stable,
            "canary": figure.canary,
            "compared": figure.compared,
            "interval": [figure.low, figure.high],
            "limit": self.limit,
            "verdict": str(self.verdict),
        }


ERRORS: Final = "error rate"
LATENCY: Final = "mean time"
TAIL: Final = "p95 of searches"
CERTIFICATES: Final = "exact share"
DRIFT: Final = "drift"
CALIBRATION: Final = "calibration"
NOT_AWAITED: Final = frozenset({CALIBRATION})
"""Rules that may break a step, but that a step does not wait for: outcomes come days later."""


def judge(
    looks: Looks,
    limits: Limits,
    level: float,
    outcomes: tuple[Outcomes, Outcomes] | None = None,
) -> list[Judgement]:
    """Apply all rules to the counts, with intervals of this level.

    With fewer requests than the limits ask for, no rule of the counts is kept, and only the error
    rate can be broken: the first requests of a new server are slower than later ones.

    Args:
        looks: What both groups counted.
        limits: How much worse the canary may be.
        level: Of the intervals.
        outcomes: Of the stable and of the canary's bundle; None without a log of them.
    """
    fewest = min(looks.requests())
    rules: list[tuple[str, Callable[[Looks, float], Figure], float, bool]] = [
        (ERRORS, compare_errors, limits.error_increase, True),
        (LATENCY, compare_times, limits.latency_ratio, True),
        (CERTIFICATES, compare_certificates, -limits.exact_drop, False),
        (DRIFT, compare_drift, limits.psi, True),
    ]
    if have_times(looks):
        rules.insert(2, (TAIL, compare_tails, limits.tail_ratio, True))
    found = []
    for name, compare, limit, is_most in rules:
        figure = compare(looks, level)
        verdict = _verdict(figure, limit, is_most=is_most)
        is_early = name == ERRORS and verdict is Verdict.BROKEN and fewest >= _LEAST_REQUESTS
        if fewest < limits.requests and not is_early:
            verdict = Verdict.OPEN
        found.append(Judgement(rule=name, figure=figure, limit=limit, verdict=verdict))
    if outcomes is not None:
        figure, limit = compare_calibration(*outcomes, level), limits.miscalibration
        verdict = _verdict(figure, limit, is_most=True)
        found.append(Judgement(rule=CALIBRATION, figure=figure, limit=limit, verdict=verdict))
    return found


def _verdict(figure: Figure, limit: float, *, is_most: bool) -> Verdict:
    """Compare an interval with a limit; NaN decides nothing."""
    if figure.high <= limit if is_most else figure.low >= limit:
        return Verdict.KEPT
    if figure.low > limit if is_most else figure.high < limit:
        return Verdict.BROKEN
    return Verdict.OPEN
