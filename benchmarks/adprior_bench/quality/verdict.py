"""The report's three answers: does the forecast help retrieval and ranking, and is it calibrated?

Each answer quotes figures of the tables below it.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Final

from adprior_bench.quality.calibration import Calibration
from adprior_bench.quality.intervals import Estimate, estimate
from adprior_bench.quality.ranking.ranking_tables import RankingGains
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import Numbers, Verdict
from adprior_bench.report.tables import decimal, percent

MAX_CALIBRATION_ERROR: Final = 0.02
CALIBRATED_RATIO: Final = (0.9, 1.1)
"""Accepted range of mean predicted / mean observed."""

_CHANGE: Final = percent(2, signed=True)
_RETRIEVAL = "Does the forecast improve retrieval?"
_RANKING = "Does the forecast improve ranking?"
_CALIBRATION = "Is the forecast calibrated?"


def retrieval_verdict(found: RetrievalFigures | None, *, events: str) -> Verdict:
    """Judge the advertisers found, against no forecast, the control and rival forecasts.

    ``found`` is None if nothing was retrieved; ``events`` is the name of the log's events.
    """
    if found is None:
        text = "The log names no items (`item` in the column map), so nothing can be retrieved."
        return {"question": _RETRIEVAL, "answer": "not measured", "text": text}
    gained, ahead, parts = [], [], []
    for budget, quota in found.quotas.items():
        gain, control = found.gains[budget], found.over_control[budget]
        rivals = {name: over[budget] for name, over in found.over_rivals.items()}
        gained.append(quota > 0 and gain.low > 0 and control.low > 0)
        ahead.append(all(over.low > 0 for over in rivals.values()))
        if quota == 0:
            parts.append(
                f"In lists of {budget} items, the validation users chose no slots for the forecast."
            )
            continue
        best = min(rivals, key=lambda name: rivals[name].value)
        parts.append(
            f"A list of {budget} items with {cell_text(quota, percent(0))} reserved for the "
            f"forecast finds {_more_or_fewer(gain)} of the advertisers of the day's {events} "
            f"than a list without reserved slots, {_more_or_fewer(control)} than one with the same "
            f"slots filled without a forecast, and {_more_or_fewer(rivals[best])} than one with "
            f"{best}."
        )
    answer = "no" if not any(gained) else "yes" if all(gained) and all(ahead) else "partly"
    return {"question": _RETRIEVAL, "answer": answer, "text": " ".join(parts)}


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
            f"{_text(highest.observed, decimal(4))}."
        ),
    }


def _more_or_fewer(found: Estimate) -> str:
    word = "more" if found.value >= 0 else "fewer"
    return (
        f"{abs(100 * found.value):.2f} points {word} "
        f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    )


def _text(found: Estimate, numbers: Numbers) -> str:
    return cell_text(asdict(found), numbers)
