from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from adprior_bench.quality.calibration import Calibration, ReliabilityBin
from adprior_bench.quality.intervals import Estimate
from adprior_bench.quality.ranking.ranking_tables import RankingGains
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.quality.verdict import (
    calibration_verdict,
    ranking_verdict,
    retrieval_verdict,
)


def around(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def retrieval(
    gain: float, over_control: float, over_rival: float, *, quota: float = 0.4
) -> Mapping[str, Any]:
    """Return the verdict on two budgets with equal figures."""
    found = RetrievalFigures(
        quotas={50: quota, 100: quota},
        gains={budget: around(gain) for budget in (50, 100)},
        over_control={budget: around(over_control) for budget in (50, 100)},
        over_rivals={
            "popularity's forecast": {budget: around(0.5) for budget in (50, 100)},
            "own_history's forecast": {budget: around(over_rival) for budget in (50, 100)},
        },
        section={"title": "Retrieval", "notes": [], "content": []},
    )
    return retrieval_verdict(found, events="review events")


@pytest.mark.parametrize(
    ("figures", "answer"),
    [
        ((0.05, 0.04, 0.03), "yes"),
        ((0.05, 0.04, -0.03), "partly"),  # a rival finds more
        ((0.05, 0.04, 0.005), "partly"),  # the interval of the difference includes 0
        ((0.05, 0.005, 0.03), "no"),  # the control finds as many
        ((0.005, 0.04, 0.03), "no"),
        ((-0.05, 0.04, 0.03), "no"),
    ],
)
def test_retrieval_needs_a_gain_over_the_control_and_over_rivals(
    figures: tuple[float, float, float], answer: str
) -> None:
    found = retrieval(*figures)
    assert found["answer"] == answer
    assert "advertisers of the day's review events" in found["text"]
    word = "more" if figures[0] > 0 else "fewer"
    assert f"finds {abs(100 * figures[0]):.2f} points {word} [" in found["text"]
    assert "than one with own_history's forecast." in found["text"]
    assert "popularity" not in found["text"]


def test_no_slots_for_the_forecast_are_no_gain() -> None:
    found = retrieval(0.0, 0.0, 0.0, quota=0.0)
    assert found["answer"] == "no"
    assert "validation users chose no slots for the forecast" in found["text"]


def test_retrieval_is_not_measured_without_items() -> None:
    assert retrieval_verdict(None, events="events")["answer"] == "not measured"


@pytest.mark.parametrize(
    ("gain", "random", "answer"),
    [
        (around(0.05), around(0.0), "yes"),
        (around(0.05), around(0.04), "not shown"),
        (around(0.005), around(0.0), "no"),
        (around(-0.05), around(0.0), "no"),
        (Estimate(value=np.nan, low=np.nan, high=np.nan), around(0.0), "not measured"),
    ],
)
def test_ranking_needs_a_gain_that_falsifiers_do_not_have(
    gain: Estimate, random: Estimate, answer: str
) -> None:
    found = ranking_verdict(
        RankingGains(
            log="simulated log",
            real=gain,
            shipped=None,
            falsifiers={"random": random, "shuffled": around(0.0), "popularity": around(0.0)},
            rivals={
                "llm_and_own_history": around(0.9),
                "own_history": around(0.02),
                "lightgbm": around(0),
            },
        )
    )
    assert found["answer"] == answer
    if answer != "not measured":
        assert f"changes PR-AUC by {100 * gain.value:+.2f} % [" in found["text"]
        assert "best baseline forecast, own_history, changes it by +2.00 %" in found["text"]
    assert ("a random forecast changes it as much" in found["text"]) == (answer == "not shown")


def calibrated(ratio: float, predicted: float, ece: float = 0.006) -> Mapping[str, Any]:
    observed = Estimate(value=0.05, low=0.03, high=0.07)
    return calibration_verdict(
        Calibration(
            bins=[
                ReliabilityBin(predicted=0.001, observed=around(0.001, 0.0005), pairs=100),
                ReliabilityBin(predicted=predicted, observed=observed, pairs=100),
            ],
            ece=np.full(101, ece),
            predicted_over_observed=np.full(101, ratio),
        )
    )


@pytest.mark.parametrize(
    ("ratio", "predicted", "ece", "answer"),
    [
        (1.05, 0.06, 0.006, "yes"),
        (1.05, 0.0963, 0.006, "partly"),
        (0.5, 0.06, 0.006, "partly"),
        (1.05, 0.06, 0.05, "partly"),
        (2.0, 0.0963, 0.006, "no"),
        (np.nan, 0.06, 0.006, "not measured"),
    ],
)
def test_calibration_is_judged_on_average_and_in_the_highest_bin(
    ratio: float, predicted: float, ece: float, answer: str
) -> None:
    found = calibrated(ratio, predicted, ece)
    assert found["answer"] == answer
    if answer != "not measured":
        expected = f"prediction is {predicted:.4f} and the mean observation 0.0500 [0.0300, 0.0700]"
        assert expected in found["text"]
