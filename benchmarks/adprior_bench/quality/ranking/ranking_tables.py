"""What the forecast adds to a ranker, and what false forecasts in its place add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from adprior_bench.quality.intervals import Draws, Estimate, UserBootstrap, estimate
from adprior_bench.quality.ranking.experiment import BASE, RANDOM, SHIPPED, SHUFFLED, RankingResult
from adprior_bench.quality.ranking.head_choice import CLAMP, REFERENCE, VariantFigures
from adprior_bench.quality.ranking.ranking_metrics import RankingDraws, area_draws, measure_ranking
from adprior_bench.report.schema import Section
from adprior_runtime.terminal.progress import track

FALSIFIED_BELOW: Final = 0.2
"""A falsifier's gain must stay under this share of the real one."""

_METRICS: Final = (
    ("auc", "AUC"),
    ("user_auc", "AUC by user"),
    ("pr_auc", "PR-AUC"),
    ("normalised_entropy", "normalised entropy"),
)
_CHANGE: Final[Any] = {"format": "percent", "digits": 2, "signed": True}
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
        for name, logits in track(result.logits.items(), desc="figures of ranking", unit="ranker")
    }
    reference = draws[REFERENCE]
    changes = {
        name: found.gains(reference)
        for name, found in draws.items()
        if name not in (BASE, REFERENCE)
    }
    gains = {name: change["pr_auc"] for name, change in changes.items()}
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
                "penalty that cross-validation over the validation users chooses for it. "
                + (
                    f"`{SHIPPED}` is the bundle's own head as it is, on the {real} forecast."
                    if SHIPPED in draws
                    else "The bundle has no head of its own yet: `adprior fit-head` makes one."
                ),
            ],
            "content": [
                {
                    "kind": "table",
                    "title": "Rankers on the simulated log",
                    "columns": [
                        {"title": "forecast in the head"},
                        *measured,
                        *({"title": f"{title}, change"} | _CHANGE for _, title in _METRICS),
                    ],
                    "rows": [
                        [
                            name,
                            *(estimate(getattr(found, metric)) for metric, _ in _METRICS),
                            *(
                                changes[name][metric] if name in gains else None
                                for metric, _ in _METRICS
                            ),
                        ]
                        for name, found in draws.items()
                    ],
                    "highlight": [
                        place for place, name in enumerate(draws) if name in (real, SHIPPED)
                    ],
                    "note": "Changes are relative to the reference, paired; less entropy is "
                    "better.",
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
                *_cross_validated(result, resamples, real),
                {
                    "kind": "table",
                    "title": "What the base ranker looks at",
                    "detail": True,
                    "columns": [
                        {"title": "feature"},
                        {"title": "share of the gain", "format": "percent", "digits": 1},
                    ],
                    "rows": [[name, share] for name, share in result.importance.items()],
                },
            ],
        },
    )


def _cross_validated(result: RankingResult, resamples: int, real: str) -> list[Any]:
    """Show each forecast's chosen head, and all heads of the real one, on validation users."""
    cases, impressions = result.fitted.cases, result.fitted.impressions
    owners = np.array([case.user.user_id for case in cases])[impressions.cases]
    bootstrap = UserBootstrap(owners, resamples=resamples)
    positive = impressions.labels.astype(np.bool_)

    def row(label: str, one: VariantFigures, reference: Draws | None) -> tuple[list[Any], Draws]:
        _, pr_auc = area_draws(one.logits, positive, bootstrap)
        gain = None if reference is None else estimate(pr_auc / reference - 1)
        return [label, one.name, one.l2, one.log_loss, estimate(pr_auc), gain], pr_auc

    without, *heads = result.variants[real]
    first, reference = row("none", without, None)
    rows = [row(name, one, reference)[0] for name, one in result.chosen.items()]
    variants = [row(real, one, reference)[0] for one in heads]
    columns: list[Any] = [
        {"title": "forecast"},
        {"title": "head"},
        {"title": "penalty", "format": "decimal", "digits": 2},
        {"title": "log-loss", "format": "decimal", "digits": 5},
        {"title": "PR-AUC", "format": "decimal", "digits": 4},
        {"title": "PR-AUC, change"} | _CHANGE,
    ]
    return [
        {
            "kind": "table",
            "title": title,
            "detail": True,
            "columns": columns,
            "rows": [first, *found],
            "highlight": [1 + place for place, is_ours in enumerate(marked) if is_ours],
            "note": "Changes are relative to the recalibrated base ranker, paired. The form and "
            "penalty of the least log-loss were chosen on the same rows.",
        }
        for title, found, marked in (
            (
                "Each forecast's head, cross-validated on validation users",
                rows,
                [name == real for name in result.chosen],
            ),
            (
                f"Heads of the {real} forecast, cross-validated on validation users",
                variants,
                [one is result.chosen[real] for one in heads],
            ),
        )
    ]


def _groups(gains: Mapping[str, Estimate], real: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {"the forecast": [], "falsifiers": [], "rival forecasts": []}
    for name, gain in gains.items():
        kind = "rival forecasts"
        if name in (real, SHIPPED):
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
        if name in (real, SHIPPED):
            continue
        share = gains[name].value / gains[real].value if gains[real].value > 0 else None
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
        "detail": True,
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
        "is paired. Where the real forecast gains nothing there is no share of it.",
    }
