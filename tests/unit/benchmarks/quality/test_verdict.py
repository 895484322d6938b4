from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from adprior_bench.quality.calibration import Calibration, ReliabilityBin
from adprior_bench.quality.intervals import Estimate
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.quality.verdict import (
    calibration_verdict,
    ranking_verdict,
    retrieval_verdict,
)

NOTHING = "the same places without a forecast"


def around(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def retrieval(
    gain: float, over_nothing: float, over_rival: float, *, quota: float = 0.4
) -> Mapping[str, Any]:
    """Return the verdict where both budgets have the same figures."""
    found = RetrievalFigures(
        quotas={50: quota, 100: quota},
        gains={budget: around(gain) for budget in (50, 100)},
        item_gains={budget: around(0.0) for budget in (50, 100)},
        over={
            NOTHING: {budget: around(over_nothing) for budget in (50, 100)},
            "popularity's forecast": {budget: around(0.5) for budget in (50, 100)},
            "own_history's forecast": {budget: around(over_rival) for budget in (50, 100)},
        },
        section={"title": "Retrieval", "notes": [], "content": []},
    )
    return retrieval_verdict(found, events="review events", unfilled=NOTHING)


@pytest.mark.parametrize(
    ("figures", "answer"),
    [
        ((0.05, 0.04, 0.03), "yes"),
        ((0.05, 0.04, -0.03), "partly"),  # a rival finds more
        ((0.05, 0.04, 0.005), "partly"),  # not clear of it
        ((0.05, 0.005, 0.03), "no"),  # anything in the places does as well
        ((0.005, 0.04, 0.03), "no"),
        ((-0.05, 0.04, 0.03), "no"),
    ],
)
def test_retrieval_gains_where_nothing_else_gains_as_much(
    figures: tuple[float, float, float], answer: str
) -> None:
    found = retrieval(*figures)
    assert found["answer"] == answer
    assert "advertisers of the day's review events" in found["text"]
    assert f"{100 * figures[0]:+.2f} pp [" in found["text"]
    assert "against own_history's forecast" in found["text"]
    assert "popularity" not in found["text"]


def test_no_place_for_the_forecast_is_no_gain() -> None:
    found = retrieval(0.0, 0.0, 0.0, quota=0.0)
    assert found["answer"] == "no"
    assert "validation users give the forecast no place" in found["text"]


def test_a_log_without_items_measures_no_retrieval() -> None:
    found = retrieval_verdict(None, events="events", unfilled=NOTHING)
    assert found["answer"] == "not measured"


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
def test_ranking_gains_where_what_knows_nothing_gains_little(
    gain: Estimate, random: Estimate, answer: str
) -> None:
    gains = {"llm": gain, "random": random, "shuffled": around(0.0), "popularity": around(0.0)}
    gains |= {
        "llm_and_own_history": around(0.9),
        "own_history": around(0.02),
        "lightgbm": around(0),
    }
    found = ranking_verdict(gains, "llm")
    assert found["answer"] == answer
    if answer != "not measured":
        assert f"{gain.value:+.2%} [" in found["text"]
        assert "best other forecast, own_history, +2.00%" in found["text"]
    assert ("a random forecast gains as much" in found["text"]) == (answer == "not shown")


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
    ("ratio", "predicted", "answer"),
    [(1.05, 0.06, "yes"), (1.05, 0.0963, "partly"), (0.5, 0.06, "partly"), (2.0, 0.0963, "no")],
)
def test_calibration_holds_on_average_and_where_it_is_surest(
    ratio: float, predicted: float, answer: str
) -> None:
    found = calibrated(ratio, predicted)
    assert found["answer"] == answer
    assert f"it says {predicted:.4f} and 0.0500 [0.0300, 0.0700] is observed" in found["text"]


def test_a_large_error_is_not_calibrated_on_average() -> None:
    assert calibrated(1.0, 0.06, ece=0.03)["answer"] == "partly"


def test_calibration_without_a_hit_is_not_measured() -> None:
    assert calibrated(float("nan"), 0.06)["answer"] == "not measured"
