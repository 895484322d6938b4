"""The report's tables on the base ranker stacked with a forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.ranking.experiment import RankingResult
from adprior_bench.quality.ranking.head_choice import REFERENCE
from adprior_bench.quality.ranking.ranking_metrics import measure_ranking
from adprior_bench.quality.stacking.second_stage import SETTINGS, setting_words
from adprior_bench.quality.stacking.stacked_ranker import WITHOUT, StackedRanker
from adprior_bench.report.schema import Cell, Table
from adprior_bench.report.tables import decimal, make_table, percent
from adprior_runtime.terminal.progress import track

_METRICS: Final = {"pr_auc": "PR-AUC", "auc": "AUC", "normalised_entropy": "normalised entropy"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackedRankerFigures:
    """Relative changes of PR-AUC against the control, by forecast, and the tables."""

    gains: Mapping[str, Estimate]
    tables: tuple[Table, Table]


def stacked_ranker_tables(
    stacked: Mapping[str, StackedRanker], result: RankingResult, resamples: int
) -> StackedRankerFigures:
    """Measure the stacked rankers on the test rows of ``result``."""
    bootstrap = UserBootstrap(result.users, resamples=resamples)
    logits = {REFERENCE: result.logits[REFERENCE]}
    logits |= {name: each.logits for name, each in stacked.items()}
    draws = {
        name: measure_ranking(each, result.labels, bootstrap)
        for name, each in track(logits.items(), desc="metrics of ranking stacks", unit="ranker")
    }
    control = draws[WITHOUT]
    rows: list[dict[str, Cell]] = []
    for name, found in draws.items():
        row: dict[str, Cell] = {
            "forecast": "no second stage" if name == REFERENCE else name,
        }
        row |= {title: estimate(getattr(found, metric)) for metric, title in _METRICS.items()}
        row |= {
            f"{title}, change": None if name == WITHOUT else found.gain(control, metric)
            for metric, title in _METRICS.items()
        }
        rows.append(row)
    whole = make_table(
        "The base ranker stacked with a forecast",
        rows,
        dict.fromkeys(_METRICS.values(), decimal(4))
        | {f"{title}, change": percent(2, signed=True) for title in _METRICS.values()},
        highlight=lambda row: row["forecast"] == result.real,
        note="A second stage corrects the base ranker from its own features, with a forecast's "
        f"columns and without (`{WITHOUT}`, the control). It is fitted on validation users, and "
        "all tried the same settings. Changes are relative to the control, on the same "
        "resamples.",
    )
    titles = [f"log-loss with {setting_words(setting)}" for setting in SETTINGS]
    tried = make_table(
        "Settings of the stacked base ranker, cross-fitted on validation users",
        [
            {
                "forecast": name,
                "chosen": setting_words(each.setting),
                **dict(zip(titles, each.losses, strict=True)),
            }
            for name, each in stacked.items()
        ],
        dict.fromkeys(titles, decimal(5)),
        detail=True,
    )
    gains = {
        name: found.gain(control, "pr_auc")
        for name, found in draws.items()
        if name not in (REFERENCE, WITHOUT)
    }
    return StackedRankerFigures(gains=gains, tables=(whole, tried))
