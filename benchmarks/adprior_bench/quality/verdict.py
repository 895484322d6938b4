"""The report's answers: what the forecast adds, and whether it is calibrated.

Each answer quotes figures of the tables below it.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Final

from adprior_bench.quality.baselines.registry import LIGHTGBM, TEXT
from adprior_bench.quality.calibration import Calibration
from adprior_bench.quality.forecasts import LLM
from adprior_bench.quality.intervals import Draws, Estimate, divide, estimate
from adprior_bench.quality.new_figures import NewFigures
from adprior_bench.quality.ranking.falsifiers import SHUFFLED
from adprior_bench.quality.ranking.ranking_tables import RankingGains
from adprior_bench.quality.retrieval.places import Places
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.quality.stacking.stack import CONTROL, stack_name
from adprior_bench.quality.stacking.stacking_tables import WITH_INTERESTS, StackingFigures
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import Numbers, Verdict
from adprior_bench.report.tables import decimal, percent

MAX_CALIBRATION_ERROR: Final = 0.02
CALIBRATED_RATIO: Final = (0.9, 1.1)
"""Accepted range of mean predicted / mean observed."""

_SHARE: Final = percent(2)
_CHANGE: Final = percent(2, signed=True)
_EXPLORE = "Does the model find advertisers new to the user?"
_NEWCOMERS = "Does the model find advertisers that nobody has acted on yet?"
_STACKING = "Does the forecast add to LightGBM?"
_RETRIEVAL = "Does the forecast improve retrieval?"
_RANKING = "Does the forecast improve ranking?"
_CALIBRATION = "Is the forecast calibrated?"


def explore_verdict(found: NewFigures) -> Verdict:
    """Judge recall@10 of new advertisers, against the best ranker without a language model."""
    ours, best = found.draws[LLM]["recall@10"], found.draws[found.best]["recall@10"]
    blends = {name: found.draws[name]["recall@10"] for name in found.blends}
    name = max(blends, key=lambda each: blends[each][0])
    text = (
        f"Of the day's {found.targets:,} advertisers that are new to the user, the model finds "
        f"{_text(estimate(ours), _SHARE)} in ten places, and the best ranker without a language "
        f"model, {found.best}, {_text(estimate(best), _SHARE)}: {_times(ours, best)}. The blend "
        f"{name} finds {_points(estimate(blends[name] - best))} than {found.best}."
    )
    return {"question": _EXPLORE, "answer": _clear(ours - best), "text": text}


def newcomer_verdict(found: NewFigures, only: NewFigures) -> Verdict:
    """Judge recall@50 of newcomers, against the text embedding, or the best baseline without it.

    ``only`` has the recall in lists of newcomers only.
    """
    other = TEXT if TEXT in found.draws else found.best
    ours, theirs = found.draws[LLM]["recall@50"], found.draws[other]["recall@50"]
    text = (
        f"Of {found.targets:,} advertisers that no training user acted on, the model finds "
        f"{_text(estimate(ours), _SHARE)} in fifty places, and {other} "
        f"{_text(estimate(theirs), _SHARE)}: {_times(ours, theirs)}."
    )
    ours_only, theirs_only = only.draws[LLM]["recall@50"], only.draws[other]["recall@50"]
    text += (
        f" In lists of newcomers only, {_text(estimate(ours_only), _SHARE)} against "
        f"{_text(estimate(theirs_only), _SHARE)}: {_times(ours_only, theirs_only)}."
    )
    if found.best != other:
        best = found.draws[found.best]["recall@50"]
        text += f" The best baseline, {found.best}, finds {_text(estimate(best), _SHARE)}."
    return {"question": _NEWCOMERS, "answer": _clear(ours - theirs), "text": text}


def _clear(difference: Draws) -> str:
    found = estimate(difference)
    return "yes" if found.low > 0 else "not shown" if found.value > 0 else "no"


def _times(ours: Draws, theirs: Draws) -> str:
    points = _points(estimate(ours - theirs))
    if not estimate(theirs).value:
        return points
    return f"{_text(estimate(divide(ours, theirs)), decimal(2))} times, {points}"


def stacking_verdict(found: StackingFigures) -> Verdict:
    """Judge recall@10 of LightGBM with the model's columns, against the same without them."""
    draws = {name: each["recall@10"] for name, each in found.draws["all"].items()}
    gain, over_ranker, shuffled = (
        estimate(draws[name] - draws[other])
        for name, other in (
            (stack_name(LLM), CONTROL),
            (stack_name(LLM), LIGHTGBM),
            (stack_name(SHUFFLED), CONTROL),
        )
    )
    text = (
        f"With the model's columns, a second stage on LightGBM finds {_points(gain)} of the day's "
        f"advertisers in ten places than without them, and {_points(over_ranker)} than LightGBM "
        f"alone. With another user's forecast, it finds {_points(shuffled)}."
    )
    if WITH_INTERESTS in draws:
        more = estimate(draws[WITH_INTERESTS] - draws[stack_name(LLM)])
        text += (
            " With the model's interests too, it finds "
            f"{_points(more)} than with the model's columns alone."
        )
    answer = "yes" if gain.low > 0 else "no" if gain.value <= 0 else "not shown"
    return {"question": _STACKING, "answer": answer, "text": text}


def retrieval_verdict(found: RetrievalFigures | None, *, events: str) -> Verdict:
    """Judge whether validation users choose the model's places, and whether the test agrees.

    ``found`` is None if nothing was retrieved; ``events`` is the name of the log's events.
    """
    if found is None:
        text = "The log names no items (`item` in the column map), so nothing can be retrieved."
        return {"question": _RETRIEVAL, "answer": "not measured", "text": text}
    parts = [_places_sentence(budget, each, events) for budget, each in found.places.items()]
    if any(each.is_confirmed for each in found.places.values()):
        answer = "yes"
    else:
        answer = "not shown" if any(each.is_chosen for each in found.places.values()) else "no"
    return {"question": _RETRIEVAL, "answer": answer, "text": " ".join(parts)}


def _places_sentence(budget: int, found: Places, events: str) -> str:
    chosen = (
        f"In lists of {budget} items, validation users give "
        f"{cell_text(found.quota, percent(0))} of the places to {found.ours}"
        if found.is_chosen
        else f"In lists of {budget} items, validation users prefer {found.rival} to {found.ours}"
    )
    return (
        f"{chosen} (a difference of {100 * found.on_validation:+.2f} points to {found.rival}). On "
        f"test users, it finds {_points(found.on_test)} of the advertisers of the day's {events} "
        f"than {found.rival}, and {_points(found.gain)} than a list without reserved places."
    )


def ranking_verdict(gains: RankingGains) -> Verdict:
    """Judge the change of PR-AUC, and whether forecasts without information do as well."""
    if math.isnan(gains.real.value):
        text = f"The {gains.log} has too few rows of both labels."
        return {"question": _RANKING, "answer": "not measured", "text": text}
    passing = gains.passing_falsifiers()
    answer = "no" if gains.real.low <= 0 else "not shown" if passing else "yes"
    text = (
        f"On the {gains.log}, the forecast changes PR-AUC by {_text(gains.real, _CHANGE)} "
        "against the recalibrated base ranker."
    )
    if answer == "not shown":
        change = _text(gains.falsifiers[passing[0]], _CHANGE)
        text += (
            f" But a {passing[0]} forecast changes it as much, without information on the user: "
            f"{change}."
        )
    if baselines := gains.baselines:
        best = max(baselines, key=lambda name: baselines[name].value)
        text += (
            f" The best baseline forecast, {best}, changes it by {_text(baselines[best], _CHANGE)}."
        )
    text += (
        " A base ranker that has learnt to use the model's columns changes it by "
        f"{_text(gains.stacked[LLM], _CHANGE)} against the same without them."
    )
    return {"question": _RANKING, "answer": answer, "text": text}


def calibration_verdict(found: Calibration) -> Verdict:
    """Judge the mean of all listed probabilities, and the highest ones."""
    error, ratio = estimate(found.ece, centred=True), estimate(found.predicted_over_observed)
    if math.isnan(ratio.value):
        text = "No user acted on a forecast advertiser."
        return {"question": _CALIBRATION, "answer": "not measured", "text": text}
    highest = found.bins[-1]
    low, high = CALIBRATED_RATIO
    on_average = low <= ratio.value <= high and error.value <= MAX_CALIBRATION_ERROR
    at_the_top = highest.observed.low <= highest.predicted <= highest.observed.high
    return {
        "question": _CALIBRATION,
        "answer": {2: "yes", 1: "partly", 0: "no"}[on_average + at_the_top],
        "text": (
            f"Mean predicted / mean observed is {_text(ratio, decimal(2))}, and the expected "
            f"calibration error is {_text(error, decimal(4))}. In the highest bin, the mean "
            f"prediction is {highest.predicted:.4f} and the mean observation "
            f"{_text(highest.observed, decimal(4))}: "
            f"{highest.predicted / max(highest.observed.value, 1e-9):.2f} times as high."
        ),
    }


def _points(found: Estimate) -> str:
    word = "more" if found.value >= 0 else "fewer"
    return (
        f"{abs(100 * found.value):.2f} points {word} "
        f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    )


def _text(found: Estimate, numbers: Numbers) -> str:
    return cell_text(asdict(found), numbers)
