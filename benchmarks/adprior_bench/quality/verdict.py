"""Three answers in three lines: does the forecast add to retrieval, to ranking; is it calibrated?

Each answer is read off figures that the report shows below, and quotes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from adprior_bench.quality.calibration import Calibration
from adprior_bench.quality.claims import (
    CALIBRATED_RATIO,
    MOST_ECE,
    number_text,
    percent_text,
    points_text,
    ratio_text,
)
from adprior_bench.quality.intervals import Estimate, estimate
from adprior_bench.quality.rankers import blend_name
from adprior_bench.quality.ranking.experiment import RANDOM, SHIPPED, SHUFFLED
from adprior_bench.quality.ranking.ranking_tables import FALSIFIED_BELOW
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.report.schema import Verdict

_RETRIEVAL = "Does it add to retrieval?"
_RANKING = "Does it add to ranking?"
_CALIBRATION = "Is it calibrated?"


def retrieval_verdict(found: RetrievalFigures | None, *, events: str, unfilled: str) -> Verdict:
    """Say whether more advertisers are found, against none and against what else could be used.

    Args:
        found: None where nothing was retrieved.
        events: What users' events are called.
        unfilled: The title of the places filled without a forecast.
    """
    if found is None:
        return {
            "question": _RETRIEVAL,
            "answer": "not measured",
            "text": "The log names no items (`item` in the column map): nothing to retrieve.",
        }
    gained, ahead, parts = [], [], []
    for budget, quota in found.quotas.items():
        gain = found.gains[budget]
        rivals = {name: over[budget] for name, over in found.over.items()}
        gained.append(quota > 0 and gain.low > 0 and rivals[unfilled].low > 0)
        ahead.append(all(over.low > 0 for over in rivals.values()))
        parts.append(_places(budget, quota, gain, rivals, unfilled))
    answer = "no" if not any(gained) else "yes" if all(gained) and all(ahead) else "partly"
    return {
        "question": _RETRIEVAL,
        "answer": answer,
        "text": f"Share found of the advertisers of the day's {events}, change: "
        + f"{'; '.join(parts)}.",
    }


def _places(
    budget: int, quota: float, gain: Estimate, rivals: Mapping[str, Estimate], unfilled: str
) -> str:
    if quota == 0:
        return f"among {budget} items none: validation users give the forecast no place"
    forecasts = {name: over for name, over in rivals.items() if name != unfilled}
    best = min(forecasts, key=lambda name: forecasts[name].value)
    return (
        f"among {budget} items, {quota:.0%} of them the forecast's, {points_text(gain)} against "
        f"none, {points_text(rivals[unfilled])} against {unfilled}, "
        f"{points_text(forecasts[best])} against {best}"
    )


def ranking_verdict(gains: Mapping[str, Estimate], real: str) -> Verdict:
    """Say whether PR-AUC rises, and whether what knows nothing of the user does as much."""
    gain = gains[real]
    if math.isnan(gain.value):
        return {
            "question": _RANKING,
            "answer": "not measured",
            "text": "The simulated log has too few rows of both labels.",
        }
    false = {name: gains[name] for name in (RANDOM, SHUFFLED, "popularity") if name in gains}
    passing = [
        name
        for name, other in false.items()
        if other.value >= FALSIFIED_BELOW * gain.value or other.overlaps(gain)
    ]
    rivals = {
        name: other
        for name, other in gains.items()
        if name not in {real, SHIPPED, *false} and not name.startswith(blend_name(""))
    }
    answer = "no" if gain.low <= 0 else "not shown" if passing else "yes"
    text = f"PR-AUC on the simulated log {percent_text(gain)} against the recalibrated base ranker"
    if answer == "not shown":
        text += f", but a {passing[0]} forecast gains as much: {percent_text(false[passing[0]])}"
    if rivals:
        best = max(rivals, key=lambda name: rivals[name].value)
        text += f"; the best other forecast, {best}, {percent_text(rivals[best])}"
    return {"question": _RANKING, "answer": answer, "text": text + "."}


def calibration_verdict(found: Calibration) -> Verdict:
    """Say whether probabilities are right on average, and where they are highest."""
    ece, ratio = estimate(found.ece, centred=True), estimate(found.predicted_over_observed)
    if math.isnan(ratio.value):
        return {
            "question": _CALIBRATION,
            "answer": "not measured",
            "text": "None of the advertisers forecast was acted on.",
        }
    highest = found.bins[-1]
    low, high = CALIBRATED_RATIO
    on_average = low <= ratio.value <= high and ece.value <= MOST_ECE
    at_the_top = highest.observed.low <= highest.predicted <= highest.observed.high
    answer = {2: "yes", 1: "partly", 0: "no"}[on_average + at_the_top]
    return {
        "question": _CALIBRATION,
        "answer": answer,
        "text": (
            f"Predicted / observed {ratio_text(ratio)} on average, expected calibration error "
            f"{number_text(ece)}; where it is surest it says {highest.predicted:.4f} and "
            f"{number_text(highest.observed)} is observed."
        ),
    }
