"""What is claimed of the forecast, and whether the figures bear it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from adprior_bench.quality.intervals import Estimate
from adprior_bench.quality.ranking.ranking_tables import FALSIFIED_BELOW
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures
from adprior_bench.report.schema import Section

MOST_ECE: Final = 0.02
"""The expected calibration error that a forecast may have."""
CALIBRATED_RATIO: Final = (0.9, 1.1)
"""Between these must the mean of predicted / observed lie."""


def claims_section(
    *,
    blend_gain: Estimate,
    over_popularity: Estimate,
    over_best: Estimate,
    best_baseline: str,
    ranking_gains: Mapping[str, Estimate],
    real: str,
    falsifiers: tuple[str, ...],
    ece: Estimate,
    predicted_over_observed: Estimate,
    retrieval: RetrievalFigures | None,
) -> Section:
    """List the claims; see the table's own words.

    Args:
        blend_gain: recall@10 of the blend with own history, minus own history's.
        over_popularity: recall@10 of the model / popularity's.
        over_best: recall@10 of the model / that of the best baseline on validation users.
        best_baseline: Its name.
        ranking_gains: PR-AUC against the reference, relative, by forecast.
        real: The model's name there.
        falsifiers: Names of forecasts that know nothing of the user.
        ece: Of the model.
        predicted_over_observed: Of the model.
        retrieval: None where the log names no items.
    """
    gain = ranking_gains[real]
    low, high = CALIBRATED_RATIO
    rows: list[list[Any]] = [
        [
            "blended with own history, recall@10 beats own history alone",
            points_text(blend_gain),
            "above 0, interval clear",
            _verdict(blend_gain.low > 0),
        ],
        [
            "alone, recall@10 is 1.5 x popularity's",
            ratio_text(over_popularity),
            "at least 1.5, interval clear of 1",
            _verdict(over_popularity.value >= 1.5 and over_popularity.low > 1),
        ],
        [
            f"alone, recall@10 is 1.10 x the best baseline's ({best_baseline})",
            ratio_text(over_best),
            "at least 1.10, interval clear of 1",
            _verdict(over_best.value >= 1.1 and over_best.low > 1),
        ],
        [
            "PR-AUC beats the recalibrated base ranker (simulated log)",
            percent_text(gain),
            "above 0, interval clear",
            _verdict(gain.low > 0),
        ],
        [
            "by 1 %",
            percent_text(gain),
            "at least +1 %, interval clear of 0",
            _verdict(gain.value >= 0.01 and gain.low > 0),
        ],
    ]
    for name in falsifiers:
        other = ranking_gains[name]
        small = other.value < FALSIFIED_BELOW * gain.value and not other.overlaps(gain)
        rows.append(
            [
                f"a {name} forecast in its place gains little",
                percent_text(other),
                f"under {FALSIFIED_BELOW:.0%} of the real gain, intervals apart",
                _verdict(small) if gain.value > 0 else "void: the real one gains nothing",
            ]
        )
    rows += [
        [
            "expected calibration error",
            number_text(ece),
            f"at most {MOST_ECE:g}",
            _verdict(ece.value <= MOST_ECE),
        ],
        [
            "mean predicted / observed",
            ratio_text(predicted_over_observed),
            f"{low:g} to {high:g}",
            _verdict(low <= predicted_over_observed.value <= high),
        ],
    ]
    if retrieval is not None:
        rows += _retrieval_rows(retrieval)
    return {
        "title": "Claims",
        "notes": [],
        "content": [
            {
                "kind": "table",
                "title": "What is claimed, and whether it holds",
                "note": "Retrieval: each quota is the one that validation users choose.",
                "columns": [
                    {"title": "claim"},
                    {"title": "found"},
                    {"title": "wanted"},
                    {"title": "holds"},
                ],
                "rows": rows,
            }
        ],
    }


def _retrieval_rows(found: RetrievalFigures) -> list[list[Any]]:
    against_none = [
        [
            f"{budget} items, {quota:.0%} the forecast's: more of the day's {what} found",
            points_text(gains[budget]),
            "a quota above 0, gain clear of 0",
            _verdict(quota > 0 and gains[budget].low > 0),
        ]
        for what, gains in (
            ("advertisers", found.gains),
            ("items", found.item_gains),
        )
        for budget, quota in found.quotas.items()
    ]
    against_others = [
        [
            f"{budget} items: more advertisers than by {name}",
            points_text(over),
            "above 0, interval clear",
            _verdict(over.low > 0),
        ]
        for name, budgets in found.over.items()
        for budget, over in budgets.items()
    ]
    return against_none + against_others


def _verdict(holds: bool) -> str:
    return "yes" if holds else "no"


def points_text(found: Estimate) -> str:
    """Return a difference of shares in points, with its interval."""
    return f"{100 * found.value:+.2f} pp [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def percent_text(found: Estimate) -> str:
    """Return a relative change, with its interval."""
    return f"{found.value:+.2%} [{found.low:+.2%}, {found.high:+.2%}]"


def ratio_text(found: Estimate) -> str:
    """Return a ratio, with its interval."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def number_text(found: Estimate) -> str:
    """Return a small number, with its interval."""
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
