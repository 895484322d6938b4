"""The report's section on interests: recall of the day's categories, beside two baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity
from adprior_bench.quality.baselines.registry import OWN, POPULARITY
from adprior_bench.quality.baselines.tuning import forecast_all
from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.forecasts import LLM
from adprior_bench.quality.interests.interest_cases import InterestCases
from adprior_bench.quality.interests.interest_forecasts import InterestForecasts
from adprior_bench.quality.intervals import UserBootstrap, estimate
from adprior_bench.quality.metrics import Scored, score
from adprior_bench.quality.new_figures import recall_draws
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Cell, Section, Table
from adprior_bench.report.tables import make_table, percent, points

_RECALLS: Final = ("recall@1", "recall@5", "recall@10")
_FILL: Final = 1e-3
"""Share of popularity after own history: it orders what the user never acted on, and ties."""
_GROUPS: Final = {"all": "all", "repeated": "in the user's history", "new": "new to the user"}


def run_interests(
    forecasts: InterestForecasts,
    study: Study,
    name_ids: Callable[[str], Sequence[int]],
    *,
    resamples: int,
) -> Section | None:
    """Measure the model's forecast of interests on the test cases.

    Args:
        forecasts: The model's.
        study: The users.
        name_ids: Tokenises a name.
        resamples: Number of bootstrap resamples.

    Returns:
        The section; None if no test case or no training event has an interest of the catalogue.
    """
    found = InterestCases.of(study, forecasts.catalogue, name_ids)
    training, count = found.training, len(forecasts.catalogue.ids)
    if not found.cases or not training.event_counts().any():
        return None
    popularity = Popularity(training)
    own = OwnHistory(training, popularity.shares, share=_FILL)
    targets = Targets.of(found.cases)
    scored = {
        LLM: score(forecasts.test[found.places], targets),
        OWN: score(forecast_all(own, found.cases, count), targets),
        POPULARITY: score(forecast_all(popularity, found.cases, count), targets),
    }
    return {
        "title": "Interests",
        "notes": [
            "The model's second output, searched after the same prompt: the day's categories that "
            f"are among the bundle's {count:,} interests. `{OWN}` ranks the categories of the "
            f"user's earlier days by frequency, then the others by `{POPULARITY}`, which is that "
            f"of the training users' events. Of {len(study.test):,} cases, {len(found.cases):,} "
            "have such a category."
        ],
        "content": [_table(scored, targets, UserBootstrap(targets.users, resamples=resamples))],
    }


def _table(scored: Mapping[str, Scored], targets: Targets, bootstrap: UserBootstrap) -> Table:
    groups = cohorts(targets)
    rows: list[dict[str, Cell]] = []
    for group, title in _GROUPS.items():
        draws = {
            name: recall_draws(each, targets, groups[group], bootstrap)
            for name, each in scored.items()
        }
        for name, mine in draws.items():
            row: dict[str, Cell] = {"interests": title, "ranker": name}
            row |= {measure: estimate(mine[measure]) for measure in _RECALLS}
            gain = estimate(draws[LLM]["recall@10"] - mine["recall@10"])
            rows.append(row | {f"{LLM} minus this row, recall@10": None if name == LLM else gain})
    return make_table(
        "Recall of interests",
        rows,
        {measure: percent(1) for measure in _RECALLS}
        | {f"{LLM} minus this row, recall@10": points(2)},
        highlight=lambda row: row["ranker"] == LLM,
        note="All rows rank all interests: those of the user's history take places from new ones.",
    )
