"""How well each ranker finds the advertisers of unseen users' days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from adprior_bench.quality.calibration import Calibration, calibrate
from adprior_bench.quality.cohorts import Cohort, Targets, cohorts
from adprior_bench.quality.exposure import measure_exposure
from adprior_bench.quality.intervals import Draws, UserBootstrap, divide, estimate
from adprior_bench.quality.metrics import RECALL_AT, Scored, measure_forecasts
from adprior_bench.report.schema import Column, Section, Table
from adprior_runtime.terminal.progress import track

_SHOWN: Final = (*(f"recall@{k}" for k in RECALL_AT), "mrr", "ndcg@20")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastFigures:
    """The draws of all rankers, by cohort and metric.

    Attributes:
        draws: cohort -> ranker -> metric -> draws.
        calibrations: By ranker, over all cases.
        section: For the report.
    """

    draws: Mapping[str, Mapping[str, Mapping[str, Draws]]]
    calibrations: Mapping[str, Calibration]
    section: Section


def forecast_section(
    scored: Mapping[str, Scored],
    targets: Targets,
    bootstrap: UserBootstrap,
    *,
    ours: list[str],
    against: list[str],
) -> ForecastFigures:
    """Measure rankers in every cohort.

    Args:
        scored: By ranker, on the same cases.
        targets: Of these.
        bootstrap: Over their users.
        ours: The rankers in question: the model, which is compared with all others, and its blends.
        against: Those that the blends are compared with, and with each other.
    """
    groups = cohorts(targets)
    draws: dict[str, dict[str, dict[str, Draws]]] = {name: {} for name in groups}
    for ranker, each in track(scored.items(), desc="figures of forecasts", unit="ranker"):
        for name, cohort in groups.items():
            draws[name][ranker] = measure_forecasts(each, targets, cohort, bootstrap)
    everyone = draws["all"]
    calibrations = {
        ranker: calibrate(each, targets, groups["all"], bootstrap)
        for ranker, each in scored.items()
    }
    return ForecastFigures(
        draws=draws,
        calibrations=calibrations,
        section={
            "title": "Forecasts",
            "notes": [],
            "content": [
                _comparison(everyone, ours, against),
                {
                    "kind": "bars",
                    "name": "recall",
                    "title": "Recall over all cases",
                    "groups": [f"recall@{k}" for k in RECALL_AT],
                    "format": "percent",
                    "digits": 0,
                    "series": [
                        {
                            "label": ranker,
                            "estimates": [estimate(found[f"recall@{k}"]) for k in RECALL_AT],
                            "highlight": ranker in ours,
                        }
                        for ranker, found in everyone.items()
                    ],
                },
                *(_figures(cohort, draws[name], ours) for name, cohort in groups.items()),
                *_calibration(calibrations, ours, against),
                _exposure(scored, bootstrap, ours),
            ],
        },
    )


def _comparison(
    draws: Mapping[str, Mapping[str, Draws]], ours: list[str], against: list[str]
) -> Table:
    model, *blends = ours
    pairs = [(model, other) for other in draws if other not in ours]
    pairs += [(blend, other) for blend in blends for other in against]
    pairs += [(later, earlier) for earlier, later in combinations(against, 2)]
    rows: list[list[Any]] = []
    for mine, other in pairs:
        a, b = draws[mine]["recall@10"], draws[other]["recall@10"]
        rows.append(
            [mine, other, estimate(a), estimate(b), estimate(a - b), estimate(divide(a, b))]
        )
    return {
        "kind": "table",
        "title": "recall@10 over all cases, paired",
        "columns": [
            {"title": "ranker"},
            {"title": "against"},
            {"title": "recall@10", "format": "percent", "digits": 2},
            {"title": "of the other", "format": "percent", "digits": 2},
            {"title": "difference", "format": "points", "digits": 2, "signed": True},
            {"title": "ratio", "format": "decimal", "digits": 2},
        ],
        "rows": rows,
    }


def _figures(cohort: Cohort, draws: Mapping[str, Mapping[str, Draws]], ours: list[str]) -> Table:
    shares: list[Column] = [{"title": name, "format": "percent", "digits": 1} for name in _SHOWN]
    columns: list[Column] = [
        {"title": "ranker"},
        *shares,
        {"title": "log-loss", "format": "decimal", "digits": 2},
    ]
    return {
        "kind": "table",
        "title": f"Cohort: {cohort.title}",
        "detail": True,
        "columns": columns,
        "rows": [
            [ranker, *(estimate(found[name]) for name in (*_SHOWN, "log_loss"))]
            for ranker, found in draws.items()
        ],
        "highlight": [place for place, ranker in enumerate(draws) if ranker in ours],
        "note": "Log-loss in nats per target of the catalogue.",
    }


def _calibration(
    found: Mapping[str, Calibration], ours: list[str], against: list[str]
) -> list[Any]:
    drawn = [ours[0], *against]
    return [
        {
            "kind": "table",
            "title": "Calibration over the 20 most probable advertisers of each case",
            "detail": True,
            "columns": [
                {"title": "ranker"},
                {"title": "ECE, 15 bins of equal mass", "format": "decimal", "digits": 4},
                {"title": "mean predicted / observed", "format": "decimal", "digits": 2},
                {"title": "highest bin: predicted", "format": "decimal", "digits": 4},
                {"title": "highest bin: observed", "format": "decimal", "digits": 4},
            ],
            "rows": [
                [
                    ranker,
                    estimate(each.ece, centred=True),
                    estimate(each.predicted_over_observed),
                    each.bins[-1].predicted,
                    each.bins[-1].observed,
                ]
                for ranker, each in found.items()
            ],
            "highlight": [place for place, ranker in enumerate(found) if ranker in ours],
            "note": "A forecast is the probability that a random one of the day's advertisers is "
            "this one; observed is 1 / the number of the day's advertisers where it is one. Most "
            "of these probabilities are small, so a small ECE is easy to have: look at the highest "
            "bin, and at the diagram.",
        },
        {
            "kind": "reliability",
            "name": "reliability",
            "title": "Reliability over the 20 most probable advertisers of each case",
            "series": [
                {
                    "label": ranker,
                    "bins": [
                        {
                            "predicted": one.predicted,
                            "observed": one.observed,
                            "pairs": one.pairs,
                        }
                        for one in found[ranker].bins
                    ],
                }
                for ranker in drawn
            ],
        },
    ]


def _exposure(scored: Mapping[str, Scored], bootstrap: UserBootstrap, ours: list[str]) -> Table:
    rows: list[list[Any]] = []
    for ranker, each in scored.items():
        found = measure_exposure(each.top_rows, each.advertisers, bootstrap)
        rows.append(
            [
                ranker,
                *(estimate(found[name], centred=True) for name in ("coverage", "hhi", "top_share")),
            ]
        )
    return {
        "kind": "table",
        "title": "Who is shown among the first 10",
        "detail": True,
        "columns": [
            {"title": "ranker"},
            {"title": "coverage of the catalogue", "format": "percent", "digits": 1},
            {"title": "Herfindahl index", "format": "decimal", "digits": 4},
            {"title": "places of the 10 most shown", "format": "percent", "digits": 1},
        ],
        "rows": rows,
        "highlight": [place for place, ranker in enumerate(scored) if ranker in ours],
    }
