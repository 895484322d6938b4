"""What the forecast adds to a ranker, and what false forecasts in its place add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adprior_bench.quality.head_choice import CLAMP, REFERENCE
from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.ranking import BASE, RANDOM, SHUFFLED, RankingResult
from adprior_bench.quality.ranking_metrics import RankingDraws, measure_ranking
from adprior_bench.quality.report.schema import Section

__all__ = ["FALSIFIED_BELOW", "RankingFigures", "ranking_section"]

FALSIFIED_BELOW: Final = 0.2
"""A falsifier's gain must stay under this share of the real one."""

_METRICS: Final = (
    ("auc", "AUC"),
    ("user_auc", "AUC by user"),
    ("pr_auc", "PR-AUC"),
    ("normalised_entropy", "normalised entropy"),
)
_FALSE: Final = (RANDOM, SHUFFLED, "popularity")
"""Forecasts that know nothing of the user; the others are rival forecasts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingFigures:
    """The draws of every ranker's metrics.

    Attributes:
        draws: By ranker.
        gains: By ranker, of PR-AUC against the reference, relative.
        section: For the report.
    """

    draws: Mapping[str, RankingDraws]
    gains: Mapping[str, Estimate]
    section: Section


def ranking_section(result: RankingResult, resamples: int, real: str) -> RankingFigures:
    """Measure every ranker on the judged rows."""
    bootstrap = UserBootstrap(result.users, resamples=resamples)
    draws = {
        name: measure_ranking(logits, result.labels, bootstrap)
        for name, logits in result.logits.items()
    }
    reference = draws[REFERENCE]
    gains = {
        name: estimate(found.pr_auc / reference.pr_auc - 1)
        for name, found in draws.items()
        if name not in (BASE, REFERENCE)
    }
    requests = len(set(result.cases.tolist()))
    measured: list[Any] = [
        {"title": title, "format": "decimal", "digits": 4} for _, title in _METRICS
    ]
    return RankingFigures(
        draws=draws,
        gains=gains,
        section={
            "title": "Ranking, on a simulated log",
            "notes": [
                f"The log is simulated: {requests:,} requests, one for each case with an "
                f"advertiser of the catalogue, {len(result.labels):,} candidates. The base ranker "
                "is LightGBM on history, recency, popularity, category and profile, fitted on the "
                "training users' days from the cut on; recalibration and heads are fitted on "
                "validation users, figures read off test users.",
                f"The reference is the base ranker with its own logit recalibrated "
                f"({result.recalibration[0]:.3f} z {result.recalibration[1]:+.3f}). Each forecast "
                f"goes through the same steps: its head, clamped to {CLAMP:g}, has the form and "
                "penalty that cross-validation over the validation users chooses for it.",
            ],
            "content": [
                {
                    "kind": "table",
                    "title": "Rankers on the simulated log",
                    "columns": [
                        {"title": "forecast in the head"},
                        *measured,
                        {"title": "PR-AUC gain", "format": "percent", "digits": 2, "signed": True},
                        {"title": "AUC gain", "format": "percent", "digits": 2, "signed": True},
                    ],
                    "rows": [
                        [
                            name,
                            *(estimate(getattr(found, metric)) for metric, _ in _METRICS),
                            gains.get(name),
                            estimate(found.auc / reference.auc - 1) if name in gains else None,
                        ]
                        for name, found in draws.items()
                    ],
                    "highlight": [list(draws).index(real)],
                    "note": "Gains are relative to the reference, paired.",
                },
                {
                    "kind": "forest",
                    "name": "ranking",
                    "title": "PR-AUC against the reference, simulated log",
                    "value_label": "relative gain in PR-AUC",
                    "format": "percent",
                    "digits": 1,
                    "signed": True,
                    "references": [{"value": 0.0, "label": "reference"}],
                    "groups": [
                        {"title": title, "rows": rows}
                        for title, rows in _groups(gains, real).items()
                        if rows
                    ],
                },
                _falsifiers(draws, gains, real),
                {
                    "kind": "table",
                    "title": f"Heads of the {real} forecast, cross-validated on validation users",
                    "columns": [
                        {"title": "head"},
                        {"title": "penalty", "format": "decimal", "digits": 2},
                        {"title": "log-loss", "format": "decimal", "digits": 5},
                        {"title": "PR-AUC", "format": "decimal", "digits": 4},
                    ],
                    "rows": [
                        [one.name, one.l2, one.log_loss, one.pr_auc]
                        for one in result.variants[real]
                    ],
                    "highlight": [
                        place
                        for place, one in enumerate(result.variants[real])
                        if one == result.chosen[real]
                    ],
                },
                {
                    "kind": "table",
                    "title": "What the base ranker looks at",
                    "columns": [
                        {"title": "feature"},
                        {"title": "share of the gain", "format": "percent", "digits": 1},
                    ],
                    "rows": [[name, share] for name, share in result.importance.items()],
                },
            ],
        },
    )


def _groups(gains: Mapping[str, Estimate], real: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {"the forecast": [], "falsifiers": [], "rival forecasts": []}
    for name, gain in gains.items():
        kind = "rival forecasts"
        if name == real:
            kind = "the forecast"
        elif name in _FALSE:
            kind = "falsifiers"
        groups[kind].append({"label": name, "estimate": gain, "highlight": name == real})
    return groups


def _falsifiers(draws: Mapping[str, RankingDraws], gains: Mapping[str, Estimate], real: str) -> Any:
    """A falsifier passes when its gain is small beside the real one's and intervals are apart."""
    base = draws[REFERENCE].pr_auc
    rows: list[list[Any]] = []
    for name in gains:
        if name == real:
            continue
        share = gains[name].value / gains[real].value if gains[real].value else float("nan")
        rows.append(
            [
                name,
                "falsifier" if name in _FALSE else "rival",
                gains[name],
                share,
                "no" if gains[name].overlaps(gains[real]) else "yes",
                estimate((draws[real].pr_auc - draws[name].pr_auc) / base),
            ]
        )
    return {
        "kind": "table",
        "title": "What would prove the forecast wrong",
        "columns": [
            {"title": "forecast in its place"},
            {"title": "kind"},
            {"title": "PR-AUC gain", "format": "percent", "digits": 2, "signed": True},
            {"title": "of the real gain", "format": "percent", "digits": 0},
            {"title": "intervals apart"},
            {"title": "real minus this", "format": "percent", "digits": 2, "signed": True},
        ],
        "rows": rows,
        "note": f"A falsifier knows nothing of the user: its gain should be under "
        f"{FALSIFIED_BELOW:.0%} of the real one, intervals apart. A rival forecast does know the "
        "user; where it gains as much, the gain is not the language model's alone. The last column "
        "is paired.",
    }
