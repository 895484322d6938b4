"""The report's section on forecasts: recall and other metrics of all rankers, by cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from adprior_bench.quality.baselines.registry import OWN, POPULARITY
from adprior_bench.quality.calibration import (
    Calibration,
    calibrate,
    calibration_table,
    reliability_plot,
)
from adprior_bench.quality.cohorts import Cohort, Targets, cohorts
from adprior_bench.quality.exposure import exposure_table
from adprior_bench.quality.forecasts import LLM, Forecasts, blend_name
from adprior_bench.quality.intervals import Draws, UserBootstrap, divide, estimate
from adprior_bench.quality.metrics import RECALL_AT, Scored, measure_forecasts
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import BarsPlot, Section, Table
from adprior_bench.report.tables import decimal, make_table, percent, points
from adprior_runtime.terminal.progress import track

RankerDraws = Mapping[str, Mapping[str, Draws]]
"""Draws by ranker and metric."""

_RECALLS: Final = [f"recall@{k}" for k in RECALL_AT]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastFigures:
    """Draws of all rankers over all cases, their calibration, and the section."""

    draws: RankerDraws
    calibrations: Mapping[str, Calibration]
    section: Section


def measure_all_forecasts(
    forecasts: Forecasts,
    scored: Mapping[str, Scored],
    targets: Targets,
    bootstrap: UserBootstrap,
) -> ForecastFigures:
    """Measure all rankers; compare the model and its blends with the best baselines."""
    shares = ", ".join(
        f"`{name}` {cell_text(share, percent(0))}" for name, share in forecasts.shares.items()
    )
    return measure_rankers(
        scored,
        targets,
        bootstrap,
        ours=list(dict.fromkeys([LLM, blend_name(OWN), blend_name(forecasts.best)])),
        rivals=list(dict.fromkeys([POPULARITY, OWN, forecasts.best])),
        notes=[
            "A blend is a weighted mean of two forecasts. The model's weight was chosen on the "
            f"validation users: {shares}."
        ],
    )


def measure_rankers(
    scored: Mapping[str, Scored],
    targets: Targets,
    bootstrap: UserBootstrap,
    *,
    ours: Sequence[str],
    rivals: Sequence[str],
    notes: Sequence[str] = (),
) -> ForecastFigures:
    """Measure all rankers in all cohorts.

    ``ours`` are the model and then its blends. The model is compared with every baseline. The
    blends are compared with the ``rivals``, a few baselines, and the rivals with each other.
    """
    groups = cohorts(targets)
    draws: dict[str, dict[str, dict[str, Draws]]] = {name: {} for name in groups}
    for ranker, each in track(scored.items(), desc="metrics of forecasts", unit="ranker"):
        for name, cohort in groups.items():
            draws[name][ranker] = measure_forecasts(each, targets, cohort, bootstrap)
    calibrations = {
        ranker: calibrate(each, targets, groups["all"], bootstrap)
        for ranker, each in scored.items()
    }
    return ForecastFigures(
        draws=draws["all"],
        calibrations=calibrations,
        section={
            "title": "Forecasts",
            "notes": notes,
            "content": [
                _comparison(draws["all"], ours, rivals),
                _recall_plot(draws["all"], ours),
                *(_cohort_table(groups[name], draws[name], ours) for name in groups),
                calibration_table(calibrations, ours),
                reliability_plot(calibrations, [ours[0], *rivals]),
                exposure_table(scored, bootstrap, ours),
            ],
        },
    )


def _comparison(draws: RankerDraws, ours: Sequence[str], rivals: Sequence[str]) -> Table:
    model, *blends = ours
    pairs = [(model, other) for other in draws if other not in ours]
    pairs += [(blend, other) for blend in blends for other in rivals]
    pairs += [(later, earlier) for earlier, later in combinations(rivals, 2)]
    rows = []
    for ranker, other in pairs:
        a, b = draws[ranker]["recall@10"], draws[other]["recall@10"]
        rows.append(
            {
                "ranker A": ranker,
                "ranker B": other,
                "recall@10 of A": estimate(a),
                "recall@10 of B": estimate(b),
                "A minus B": estimate(a - b),
                "A / B": estimate(divide(a, b)),
            }
        )
    return make_table(
        "Paired differences of recall@10 between two rankers, all cases",
        rows,
        {
            "recall@10 of A": percent(2),
            "recall@10 of B": percent(2),
            "A minus B": points(2),
            "A / B": decimal(2),
        },
    )


def _recall_plot(draws: RankerDraws, ours: Sequence[str]) -> BarsPlot:
    return {
        "kind": "bars",
        "name": "recall",
        "title": "Recall, all cases",
        "groups": _RECALLS,
        "format": "percent",
        "digits": 0,
        "series": [
            {
                "label": ranker,
                "estimates": [estimate(found[name]) for name in _RECALLS],
                "highlight": ranker in ours,
            }
            for ranker, found in draws.items()
        ],
    }


def _cohort_table(cohort: Cohort, draws: RankerDraws, ours: Sequence[str]) -> Table:
    shares = [*_RECALLS, "mrr", "ndcg@20"]
    titles = {name: name.replace("mrr", "MRR").replace("ndcg", "nDCG") for name in shares}
    titles["log_loss"] = "log-loss"
    return make_table(
        f"Cohort: {cohort.title}",
        [
            {"ranker": ranker, **{titles[name]: estimate(found[name]) for name in titles}}
            for ranker, found in draws.items()
        ],
        {titles[name]: percent(1) for name in shares} | {"log-loss": decimal(2)},
        highlight=lambda row: row["ranker"] in ours,
        note="Log-loss is in nats per advertiser of the catalogue that a user acted on.",
        detail=True,
    )
