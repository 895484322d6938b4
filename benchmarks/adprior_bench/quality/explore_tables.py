"""The report's section on repeats and on advertisers new to the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.registry import CATEGORY, POPULARITY, TEXT
from adprior_bench.quality.cohorts import Cohort, Int64Array, Targets, cohorts
from adprior_bench.quality.explore import Explore, new_shares
from adprior_bench.quality.exposure import SHOWN
from adprior_bench.quality.forecast_tables import RankerDraws
from adprior_bench.quality.forecasts import LLM, Forecasts
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import UserBootstrap, divide, estimate
from adprior_bench.quality.metrics import (
    EXPLORE_AT,
    RECALL_AT,
    Float32Array,
    Scored,
    score,
)
from adprior_bench.quality.model_forecasts import NEW_K
from adprior_bench.quality.new_figures import NewFigures, new_figures, recall_draws
from adprior_bench.quality.study import Study
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
    """Recall of new advertisers, and of newcomers if there are any, and the section."""

    explore: NewFigures
    newcomers: NewFigures | None
    newcomers_only: NewFigures | None
    section: Section


def explore_section(
    forecasts: Forecasts,
    newcomers: Forecasts | None,
    among_newcomers: Float32Array | None,
    whole_lists: Mapping[str, Scored],
    study: Study,
    exact: npt.NDArray[np.bool_],
    *,
    resamples: int,
) -> ExploreFigures:
    """Measure all rankers on repeats and on new advertisers of the test cases.

    Args:
        forecasts: Of new advertisers, see `explore_forecasts`.
        newcomers: Of newcomers, see `newcomer_forecasts`; None without any.
        among_newcomers: The model's forecasts of newcomers only, of the same cases.
        whole_lists: The rankers' scored forecasts of all advertisers.
        study: Has the test cases.
        exact: bool [cases, 2], see `ModelForecasts`.
        resamples: Number of bootstrap resamples.
    """
    cases, events = study.test, study.training.event_counts()
    explored = Explore.of(cases)
    targets = Targets.of(explored.cases)
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    scored = {
        name: score(forecasts.test[name], targets)
        for name in track(forecasts.names, desc="metrics of new advertisers", unit="ranker")
    }
    found = new_figures(forecasts, scored, targets, bootstrap)
    named = [name for name in (POPULARITY, CATEGORY, TEXT) if name in scored]
    shown = dict.fromkeys([LLM, *forecasts.blends, forecasts.best, *named])
    content = [
        _comparison(found),
        _recall_table("Recall of new advertisers, own history left out of every list", found.draws),
        _repeat_table(whole_lists, cases, resamples),
        _frequency_table({name: scored[name] for name in shown}, targets, events, bootstrap),
    ]
    figures = only = None
    if newcomers is not None and among_newcomers is not None:
        explored_newcomers = Explore.of(cases, events == 0)
        targets = Targets.of(explored_newcomers.cases)
        bootstrap = UserBootstrap(targets.users, resamples=resamples)
        scored = {name: score(matrix, targets) for name, matrix in newcomers.test.items()}
        figures = new_figures(newcomers, scored, targets, bootstrap)
        content.append(_newcomer_table(figures))
        lists = dict(newcomers.test) | {LLM: among_newcomers}
        scored = {
            name: score(explored_newcomers.only(lists[name]), targets)
            for name in lists
            if name not in newcomers.blends
        }
        only = new_figures(newcomers, scored, targets, bootstrap)
        content.append(
            _recall_table("Newcomers in lists of newcomers only", only.draws, "Of the same cases.")
        )
    return ExploreFigures(
        explore=found,
        newcomers=figures,
        newcomers_only=only,
        section={
            "title": "Repeats and new advertisers",
            "notes": _notes(forecasts, cases, explored, exact),
            "content": content,
        },
    )


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


def _comparison(found: NewFigures) -> Table:
    best = found.draws[found.best]
    return make_table(
        f"New advertisers: the model and its blends against {found.best}",
        [
            {
                "ranker": name,
                "measure": measure,
                "recall": estimate(found.draws[name][measure]),
                found.best: estimate(best[measure]),
                "difference": estimate(found.draws[name][measure] - best[measure]),
                "ratio": estimate(divide(found.draws[name][measure], best[measure])),
            }
            for name in (LLM, *found.blends)
            for measure in (f"recall@{k}" for k in EXPLORE_AT[1:])
        ],
        {
            "recall": percent(2),
            found.best: percent(2),
            "difference": points(2),
            "ratio": decimal(2),
        },
        highlight=lambda row: row["measure"] == _COMPARED,
    )


def _recall_table(title: str, draws: RankerDraws, note: str = "") -> Table:
    measures = [f"recall@{k}" for k in EXPLORE_AT]
    return make_table(
        title,
        [
            {"ranker": ranker, **{name: estimate(found[name]) for name in measures}}
            for ranker, found in draws.items()
        ],
        {name: percent(2) for name in measures},
        highlight=lambda row: row["ranker"].startswith(LLM),
        note=note,
    )


def _newcomer_table(found: NewFigures) -> Table:
    return _recall_table(
        f"Recall of newcomers: {found.targets:,} advertisers acted on, with no training event",
        found.draws,
        "Every list is of all advertisers but the user's own. Settings, and the best baseline "
        f"({found.best}), have the highest recall@50 in lists of newcomers only, on validation "
        "users. "
        f"`{CATEGORY}` knows each newcomer's category from the catalogue, and `{TEXT}` its name "
        "and category; neither they nor the model know who acted on it.",
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
        found = recall_draws(each, targets, repeats, bootstrap)
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
            found = recall_draws(each, targets, cohort, bootstrap)
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
        note="Only advertisers of the catalogue. `adprior catalogue --newcomers` lists newcomers.",
    )
