from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adprior_bench.quality.calibration import Calibration, ReliabilityBin
from adprior_bench.quality.intervals import Estimate
from adprior_bench.quality.new_figures import NewFigures
from adprior_bench.quality.ranking.ranking_tables import RankingGains
from adprior_bench.quality.retrieval.places import Places
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.quality.stacking.stacking_tables import StackingFigures
from adprior_bench.quality.verdict import (
    calibration_verdict,
    explore_verdict,
    newcomer_verdict,
    ranking_verdict,
    retrieval_verdict,
    stacking_verdict,
)


def around(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def explored(ours: float, best: float, width: float) -> Mapping[str, Any]:
    """Return the verdict on recalls whose draws are ``width`` apart."""
    spread = np.append(0.0, np.linspace(-width, width, 101))
    draws = {"llm": ours + spread, "llm_and_user_knn": ours + 0.01 + spread}
    draws |= {"user_knn": np.full(102, best), "popularity": np.full(102, 0.5)}
    return explore_verdict(
        NewFigures(
            best="user_knn",
            blends=["llm_and_user_knn"],
            draws={name: {"recall@10": found} for name, found in draws.items()},
            targets=1234,
        )
    )


@pytest.mark.parametrize(
    ("ours", "width", "answer"),
    [(0.06, 0.01, "yes"), (0.06, 0.03, "not shown"), (0.03, 0.01, "no")],
)
def test_new_advertisers_are_judged_against_the_best_baseline(
    ours: float, width: float, answer: str
) -> None:
    found = explored(ours, 0.04, width)
    assert found["answer"] == answer
    assert f"{ours / 0.04:.2f} [" in found["text"]
    assert "user_knn, 4.00 %" in found["text"]


def test_newcomers_are_judged_against_the_text_embedding() -> None:
    draws = {"llm": 0.06, "text_embedding": 0.02, "category_popularity": 0.08}
    figures = NewFigures(
        best="category_popularity",
        blends=[],
        draws={name: {"recall@50": np.full(102, value)} for name, value in draws.items()},
        targets=99,
    )
    found = newcomer_verdict(figures, figures)
    assert found["answer"] == "yes"
    assert "text_embedding 2.00 %" in found["text"]
    assert "3.00 [3.00, 3.00] times" in found["text"]
    assert "lists of newcomers only, 6.00 % [6.00, 6.00] against 2.00 %" in found["text"]
    assert "category_popularity, finds 8.00 %" in found["text"]


def test_a_rival_that_finds_nothing_has_no_ratio() -> None:
    found = explored(0.06, 0.0, 0.0)
    assert found["answer"] == "yes"
    assert "times" not in found["text"]
    assert "nan" not in found["text"]


def retrieval(
    on_validation: float, on_test: float, *, gain: float = 0.05, over_control: float = 0.05
) -> Mapping[str, Any]:
    """Return the verdict on two budgets; at the second one, validation users prefer the rival."""
    places = Places(
        ours="llm's new advertisers only",
        quota=0.2,
        rival="lightgbm's forecast",
        on_validation=on_validation,
        on_test=around(on_test),
        gain=around(gain),
        over_control=around(over_control),
    )
    found = RetrievalFigures(
        places={50: places, 100: replace(places, on_validation=-0.01)},
        section={"title": "Retrieval", "notes": [], "content": []},
    )
    return retrieval_verdict(found, events="review events")


@pytest.mark.parametrize(
    ("figures", "answer"),
    [
        ({"on_validation": 0.01, "on_test": 0.03}, "yes"),
        ({"on_validation": 0.01, "on_test": 0.005}, "not shown"),  # the interval includes 0
        ({"on_validation": 0.01, "on_test": 0.03, "over_control": 0.005}, "not shown"),
        ({"on_validation": 0.01, "on_test": 0.03, "gain": 0.005}, "not shown"),
        ({"on_validation": -0.01, "on_test": 0.03}, "no"),
    ],
)
def test_retrieval_needs_a_choice_that_the_test_confirms(
    figures: dict[str, float], answer: str
) -> None:
    found = retrieval(**figures)
    assert found["answer"] == answer
    assert "validation users prefer lightgbm's forecast to llm's new" in found["text"]
    more = f"{100 * figures['on_test']:.2f} points more ["
    assert f"it finds {more}" in found["text"]
    assert "of the advertisers of the day's review events than lightgbm's" in found["text"]


@pytest.mark.parametrize(("gain", "answer"), [(0.03, "yes"), (0.005, "not shown"), (-0.03, "no")])
def test_stacking_needs_a_gain_over_the_control(gain: float, answer: str) -> None:
    noise = np.concatenate([[0.0], np.linspace(-0.01, 0.01, 100)])
    recalls = {"lightgbm": 0.2, "stack": 0.21, "stack_with_shuffled": 0.211}
    draws = {name: {"recall@10": np.full(101, value)} for name, value in recalls.items()}
    draws["stack_with_llm"] = {"recall@10": 0.21 + gain + noise}
    figures = StackingFigures(
        draws={"all": draws}, section={"title": "", "notes": [], "content": []}
    )
    found = stacking_verdict(figures)
    assert found["answer"] == answer
    word = "more" if gain > 0 else "fewer"
    assert f"finds {100 * abs(gain):.2f} points {word} [" in found["text"]
    assert f"{100 * abs(gain + 0.01):.2f} points " in found["text"]
    assert "another user's forecast, it finds 0.10 points more" in found["text"]
    assert "interests" not in found["text"]
    draws["stack_with_llm_and_interests"] = {
        "recall@10": draws["stack_with_llm"]["recall@10"] + 0.002
    }
    text = stacking_verdict(figures)["text"]
    assert "With the model's interests too, it finds 0.20 points more [+0.20, +0.20]" in text


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
            stacked={"llm": around(0.03), "random": around(0)},
        )
    )
    assert found["answer"] == answer
    if answer != "not measured":
        assert "to use the model's columns changes it by +3.00 %" in found["text"]
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
