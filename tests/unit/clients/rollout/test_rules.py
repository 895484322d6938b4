from __future__ import annotations

import numpy as np
import pytest

from adprior_client.rollout.comparison import Looks
from adprior_client.rollout.metrics_page import BINS, FIELDS, TIME_BOUNDS_S, TIMES, Counts, Field
from adprior_client.rollout.outcomes import Outcomes
from adprior_client.rollout.rules import LEVEL, Limits, Verdict, judge
from support.fake_triton_with_metrics import POPULAR


def _counts(
    answered: int,
    *,
    failed: int = 0,
    mean_ms: float = 10,
    exact: float = 0.9,
    bins: tuple[float, ...] = POPULAR,
    tail_s: float = 0.02,
) -> Counts:
    found = np.zeros(FIELDS)
    found[Field.ANSWERED] = found[Field.FORECASTS] = answered
    found[Field.FAILED] = failed
    found[Field.DURATION_US] = 1e3 * mean_ms * answered
    found[Field.EXACT] = round(exact * answered)
    found[BINS] = np.array(bins) * answered
    at_most = [0.9 * (bound >= 0.01) + 0.1 * (bound >= tail_s) for bound in TIME_BOUNDS_S]
    found[TIMES] = answered * np.array(at_most)
    return found


def _judge(canary: Counts, limits: Limits | None = None) -> dict[str, Verdict]:
    looks = Looks()
    for _ in range(10):
        looks.add(_counts(1000), canary)
    return {each.rule: each.verdict for each in judge(looks, limits or Limits(), LEVEL)}


def test_the_same_figures_keep_every_rule() -> None:
    assert set(_judge(_counts(200)).values()) == {Verdict.KEPT}


@pytest.mark.parametrize(
    ("canary", "rule"),
    [
        (_counts(190, failed=10), "error rate"),
        (_counts(200, mean_ms=16), "mean time"),
        (_counts(200, tail_s=0.05), "p95 of searches"),
        (_counts(200, exact=0.7), "exact share"),
        (_counts(200, bins=POPULAR[::-1]), "drift"),
    ],
)
def test_each_rule_can_be_broken(canary: Counts, rule: str) -> None:
    found = _judge(canary)
    assert found.pop(rule) is Verdict.BROKEN
    assert set(found.values()) == {Verdict.KEPT}


def test_a_limit_within_the_interval_is_open() -> None:
    assert _judge(_counts(198, failed=2))["error rate"] is Verdict.OPEN
    assert _judge(_counts(200, exact=0.8))["exact share"] is Verdict.OPEN


def test_the_limits_are_settings() -> None:
    canary = _counts(190, failed=10, mean_ms=16, exact=0.7, bins=POPULAR[::-1], tail_s=0.05)
    lax = Limits(error_increase=0.2, latency_ratio=2, tail_ratio=3, exact_drop=0.5, psi=20)
    assert set(_judge(canary, lax).values()) == {Verdict.KEPT}


def test_too_few_requests_decide_nothing_but_errors() -> None:
    bad = _counts(5, failed=5, mean_ms=99, exact=0, bins=POPULAR[::-1])
    found = _judge(bad)
    assert found.pop("error rate") is Verdict.BROKEN
    assert set(found.values()) == {Verdict.OPEN}
    assert set(_judge(_counts(50)).values()) == {Verdict.OPEN}


def test_a_handful_of_failures_is_no_proof() -> None:
    looks = Looks()
    looks.add(_counts(1000), _counts(0, failed=9))
    assert judge(looks, Limits(), LEVEL)[0].verdict is Verdict.OPEN
    looks.add(_counts(1000), _counts(0, failed=1))
    assert judge(looks, Limits(), LEVEL)[0].verdict is Verdict.BROKEN


def test_without_times_of_searches_there_is_no_rule_of_them() -> None:
    canary = _counts(200)
    canary[TIMES] = 0
    assert "p95 of searches" not in _judge(canary)


@pytest.mark.parametrize(
    ("canary", "verdict"),
    [
        (Outcomes(observed=2000, expected=1000), Verdict.BROKEN),
        (Outcomes(observed=3, expected=1000), Verdict.BROKEN),
        (Outcomes(observed=1050, expected=1000), Verdict.KEPT),
        (Outcomes(observed=12, expected=10), Verdict.OPEN),
        (Outcomes(), Verdict.OPEN),
    ],
)
def test_calibration_is_judged_by_outcomes_however_few_requests_came(
    canary: Outcomes, verdict: Verdict
) -> None:
    looks = Looks()
    looks.add(_counts(5), _counts(1))
    outcomes = Outcomes(observed=10_100, expected=10_000), canary
    found = judge(looks, Limits(), LEVEL, outcomes)[-1]
    assert (found.rule, found.verdict) == ("calibration", verdict)
