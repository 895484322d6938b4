"""The report's section on repeats and on advertisers new to the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.registry import POPULARITY
from adprior_bench.quality.cohorts import Cohort, Int64Array, Targets, cohorts
from adprior_bench.quality.explore import Explore, new_shares
from adprior_bench.quality.exposure import SHOWN
from adprior_bench.quality.forecast_tables import RankerDraws
from adprior_bench.quality.forecasts import LLM, Forecasts
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import Draws, UserBootstrap, divide, estimate
from adprior_bench.quality.metrics import (
    EXPLORE_AT,
    RECALL_AT,
    Scored,
    case_values,
    score,
)
from adprior_bench.quality.model_forecasts import NEW_K
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import Cell, Section, Table
from adprior_bench.report.tables import COUNT, decimal, make_table, percent, points
from adprior_runtime.terminal.progress import track

_COMPARED: Final = "recall@10"
_GROUPS: Final = (
    ("0: newcomers", 0, 0),
    ("1 to 2", 1, 2),
    ("3 to 9", 3, 9),
    ("10 or more", 10, np.inf),
)
"""Groups of advertisers by the number of training users' events: title, least, most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExploreFigures:
    """Recall of new advertisers on the test cases, and the section.

    Attributes:
        best: The best baseline, chosen on validation cases.
        blends: The model's blends.
        draws: Draws of recall, by ranker.
        section: The section of the report.
    """

    best: str
    blends: Collection[str]
    draws: RankerDraws
    section: Section


def explore_section(
    forecasts: Forecasts,
    whole_lists: Mapping[str, Scored],
    cases: Sequence[EncodedCase],
    training_events: npt.NDArray[np.int64],
    exact: npt.NDArray[np.bool_],
    *,
    resamples: int,
) -> ExploreFigures:
    """Measure all rankers on repeats and on new advertisers.

    Args:
        forecasts: Of new advertisers, see `explore_forecasts`.
        whole_lists: The rankers' scored forecasts of all advertisers, of the same cases.
        cases: The test cases.
        training_events: int64 [advertisers], the number of training events of each.
        exact: bool [cases, 2], see `ModelForecasts`.
        resamples: Number of bootstrap resamples.
    """
    explored = Explore.of(cases)
    targets = Targets.of(explored.cases)
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    scored = {
        name: score(forecasts.test[name], targets)
        for name in track(forecasts.names, desc="metrics of new advertisers", unit="ranker")
    }
    everything = cohorts(targets)["all"]
    draws = {name: _recalls(each, targets, everything, bootstrap) for name, each in scored.items()}
    shown = dict.fromkeys([LLM, *forecasts.blends, forecasts.best, POPULARITY])
    return ExploreFigures(
        best=forecasts.best,
        blends=list(forecasts.blends),
        draws=draws,
        section={
            "title": "Repeats and new advertisers",
            "notes": _notes(forecasts, cases, explored, exact),
            "content": [
                _comparison(draws, forecasts),
                _explore_table(draws),
                _repeat_table(whole_lists, cases, resamples),
                _frequency_table(
                    {name: scored[name] for name in shown}, targets, training_events, bootstrap
                ),
            ],
        },
    )


def _recalls(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> dict[str, Draws]:
    values = case_values(scored, targets, cohort)
    return {f"recall@{k}": bootstrap.mean(values[f"recall@{k}"], cohort.cases) for k in EXPLORE_AT}


def _notes(
    forecasts: Forecasts,
    cases: Sequence[EncodedCase],
    explored: Explore,
    exact: npt.NDArray[np.bool_],
) -> list[str]:
    proved = [cell_text(share, percent(1)) for share in exact.mean(axis=0).tolist()]
    shares = ", ".join(
        f"`{name}` {cell_text(share, percent(0))}" for name, share in forecasts.shares.items()
    )
    return [
        "A repeat is an advertiser that the user acted on before the day. A ranker can copy it "
        "from the history, so new advertisers are measured apart: every ranker's list is taken "
        "without the user's own history, and filled up. Recall is the share of the day's new "
        f"advertisers in it, over the {len(explored.cases):,} of {len(cases):,} cases that have "
        "any (Li et al., A Next Basket Recommendation Reality Check, TOIS 2023).",
        "Baselines have the settings with the highest recall@10 of new advertisers on validation "
        f"users; the best one there is {forecasts.best}. The model's weight in each blend was "
        f"chosen in the same way: {shares}.",
        f"The model's most probable advertisers are proved in {proved[0]} of the cases, and the "
        f"{NEW_K} most probable new ones in {proved[1]}.",
    ]


def _comparison(draws: RankerDraws, forecasts: Forecasts) -> Table:
    best = draws[forecasts.best]
    return make_table(
        f"New advertisers: the model and its blends against {forecasts.best}",
        [
            {
                "ranker": name,
                "measure": measure,
                "recall": estimate(draws[name][measure]),
                f"{forecasts.best}": estimate(best[measure]),
                "difference": estimate(draws[name][measure] - best[measure]),
                "ratio": estimate(divide(draws[name][measure], best[measure])),
            }
            for name in (LLM, *forecasts.blends)
            for measure in (f"recall@{k}" for k in EXPLORE_AT[1:])
        ],
        {
            "recall": percent(2),
            f"{forecasts.best}": percent(2),
            "difference": points(2),
            "ratio": decimal(2),
        },
        highlight=lambda row: row["measure"] == _COMPARED,
    )


def _explore_table(draws: RankerDraws) -> Table:
    measures = [f"recall@{k}" for k in EXPLORE_AT]
    return make_table(
        "Recall of new advertisers, own history left out of every list",
        [
            {"ranker": ranker, **{name: estimate(found[name]) for name in measures}}
            for ranker, found in draws.items()
        ],
        {name: percent(2) for name in measures},
        highlight=lambda row: row["ranker"].startswith(LLM),
    )


def _repeat_table(
    scored: Mapping[str, Scored], cases: Sequence[EncodedCase], resamples: int
) -> Table:
    targets = Targets.of(cases)
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    repeats = cohorts(targets)["repeated"]
    measures = [f"recall@{k}" for k in RECALL_AT]
    new = f"new in the first {SHOWN}"
    rows: list[dict[str, Cell]] = []
    for ranker, each in scored.items():
        found = _recalls(each, targets, repeats, bootstrap)
        share = bootstrap.mean(new_shares(each.top_rows[:, :SHOWN], cases))
        row: dict[str, Cell] = {"ranker": ranker}
        row |= {name: estimate(found[name]) for name in measures}
        rows.append(row | {new: estimate(share)})
    return make_table(
        "Recall of repeats in whole lists, and the share of each list that is new to the user",
        rows,
        dict.fromkeys(measures, percent(1)) | {new: percent(1)},
        highlight=lambda row: row["ranker"].startswith(LLM),
    )


def _frequency_table(
    scored: Mapping[str, Scored],
    targets: Targets,
    training_events: Int64Array,
    bootstrap: UserBootstrap,
) -> Table:
    events = training_events[targets.rows]
    rows: list[dict[str, Cell]] = []
    for title, least, most in _GROUPS:
        chosen = (events >= least) & (events <= most)
        cohort = Cohort(title=title, targets=chosen, counts=targets.count(chosen))
        for ranker, each in scored.items():
            found = _recalls(each, targets, cohort, bootstrap)
            rows.append(
                {
                    "training events": title,
                    "advertisers acted on": int(chosen.sum()),
                    "ranker": ranker,
                    **{f"recall@{k}": estimate(found[f"recall@{k}"]) for k in (10, 50)},
                }
            )
    return make_table(
        "New advertisers by how often training users acted on them",
        rows,
        {"advertisers acted on": COUNT, "recall@10": percent(2), "recall@50": percent(2)},
        highlight=lambda row: row["ranker"] == LLM,
        note="Only advertisers of the catalogue.",
    )
