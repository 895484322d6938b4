"""The report's section on stacking: what a forecast adds to LightGBM that may learn to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adprior_bench.quality.baselines.registry import LIGHTGBM
from adprior_bench.quality.cohorts import Cohort, Targets, cohorts
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.forecasts import LLM
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import Draws, UserBootstrap, estimate
from adprior_bench.quality.metrics import RECALL_AT, Float32Array, Scored, case_values, score
from adprior_bench.quality.stacking.second_stage import SETTINGS, setting_words
from adprior_bench.quality.stacking.stack import CONTROL, Stack, stack_name
from adprior_bench.report.schema import Cell, Section, Table
from adprior_bench.report.tables import make_table, percent, points

_RECALLS: Final = [f"recall@{k}" for k in RECALL_AT]
WITH_INTERESTS: Final = stack_name(LLM, interests=True)
"""The stack with the model's columns and its forecast of the candidate's category."""
_ALL: Final = "all"
_NEW: Final = "new, without own history"

RecallDraws = Mapping[str, Draws]
"""Draws of recall by measure."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackingFigures:
    """Draws of the control and of all stacks, by group of targets and ranker, and the section."""

    draws: Mapping[str, Mapping[str, RecallDraws]]
    section: Section


def stacking_section(
    stacks: Mapping[str, Stack],
    ranker: tuple[Float32Array, Float32Array],
    cases: Sequence[EncodedCase],
    *,
    resamples: int,
) -> StackingFigures:
    """Measure all stacks on the test cases, beside the first ranker alone.

    Args:
        stacks: The control, and a stack for each forecast.
        ranker: The first ranker's forecasts: float32 [cases, advertisers], and those of new
            advertisers, as `Explore.forecasts` gives.
        cases: The test cases.
        resamples: Number of bootstrap resamples.
    """
    targets, explored = Targets.of(cases), Explore.of(cases)
    whole = {LIGHTGBM: score(ranker[0], targets)}
    whole |= {
        name: score(stack.everything.test.probabilities(), targets)
        for name, stack in stacks.items()
    }
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    groups = cohorts(targets)
    draws = {
        _ALL: _recalls(whole, targets, groups["all"], bootstrap),
        "repeats": _recalls(whole, targets, groups["repeated"], bootstrap),
        "new": _recalls(whole, targets, groups["new"], bootstrap),
    }
    if explored.cases:
        new_targets = Targets.of(explored.cases)
        new = {LIGHTGBM: score(ranker[1], new_targets)}
        new |= {
            name: score(explored.forecasts(stack.new.test.probabilities()), new_targets)
            for name, stack in stacks.items()
        }
        new_bootstrap = UserBootstrap(new_targets.users, resamples=resamples)
        draws[_NEW] = _recalls(new, new_targets, cohorts(new_targets)["all"], new_bootstrap)
    return StackingFigures(
        draws=draws,
        section={
            "title": "Stacking",
            "notes": [
                "A second stage learns to correct LightGBM's ranking from its signals, with a "
                f"forecast's columns and without them (`{CONTROL}`, the control). It learns from "
                "validation users, from whom neither the language model nor LightGBM has learnt. "
                "The columns are the prior head's features: log-probability, the same minus "
                "log-popularity, rank, entropy, missing mass; a forecast also adds its most "
                "probable advertisers to the candidates.",
                *(
                    [
                        f"`{WITH_INTERESTS}` has one column more: the log-probability of the "
                        "candidate's category in the model's forecast of interests."
                    ]
                    if WITH_INTERESTS in stacks
                    else []
                ),
                f"Every stack tried the same {len(SETTINGS)} settings; cross-fitted recall@10 over "
                "validation users chose one for all advertisers, and one for new advertisers.",
            ],
            "content": [
                _difference_table(draws, stacks),
                _recall_table(draws),
                _setting_table(stacks),
            ],
        },
    )


def _recalls(
    scored: Mapping[str, Scored], targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> dict[str, dict[str, Draws]]:
    found: dict[str, dict[str, Draws]] = {}
    for name, each in scored.items():
        values = case_values(each, targets, cohort)
        found[name] = {
            measure: bootstrap.mean(values[measure], cohort.cases) for measure in _RECALLS
        }
    return found


def _difference_table(
    draws: Mapping[str, Mapping[str, RecallDraws]], stacks: Mapping[str, Stack]
) -> Table:
    pairs = [(name, CONTROL) for name in stacks if name != CONTROL]
    pairs += [(stack_name(LLM), LIGHTGBM), (CONTROL, LIGHTGBM)]
    if WITH_INTERESTS in stacks:
        pairs.append((WITH_INTERESTS, stack_name(LLM)))
    rows: list[dict[str, Cell]] = [
        {
            "stack": name,
            "minus": other,
            "advertisers": group,
            **{
                measure: estimate(found[name][measure] - found[other][measure])
                for measure in _RECALLS
            },
        }
        for name, other in pairs
        for group, found in draws.items()
    ]
    return make_table(
        "What a forecast adds to LightGBM: differences of recall",
        rows,
        {measure: points(2) for measure in _RECALLS},
        highlight=lambda row: (row["stack"], row["minus"]) == (stack_name(LLM), CONTROL),
        note="A shuffled forecast is another user's: what it adds is no knowledge of the user.",
    )


def _recall_table(draws: Mapping[str, Mapping[str, RecallDraws]]) -> Table:
    return make_table(
        "Recall of stacks",
        [
            {
                "advertisers": group,
                "ranker": name,
                **{measure: estimate(each[measure]) for measure in _RECALLS},
            }
            for group, found in draws.items()
            for name, each in found.items()
        ],
        {measure: percent(2) for measure in _RECALLS},
        highlight=lambda row: row["ranker"] == stack_name(LLM),
        detail=True,
    )


def _setting_table(stacks: Mapping[str, Stack]) -> Table:
    titles = [f"recall@10 with {setting_words(setting)}" for setting in SETTINGS]
    rows: list[dict[str, Cell]] = []
    for name, stack in stacks.items():
        for group, choice in ((_ALL, stack.everything), (_NEW, stack.new)):
            row: dict[str, Cell] = {
                "stack": name,
                "advertisers": group,
                "chosen": setting_words(choice.setting),
            }
            rows.append(row | dict(zip(titles, choice.recalls, strict=True)))
    return make_table(
        "Settings of stacks, cross-fitted on validation users",
        rows,
        {title: percent(2) for title in titles},
        note="These figures are slightly optimistic, because the same users chose the settings.",
        detail=True,
    )
