"""The report's section on ranking: gains of the forecast, of falsifiers and of rival forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adprior_bench.quality.baselines.registry import POPULARITY
from adprior_bench.quality.forecasts import blend_name
from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.ranking.experiment import BASE, SHIPPED, RankingResult
from adprior_bench.quality.ranking.falsifiers import RANDOM, SHUFFLED
from adprior_bench.quality.ranking.head_choice import REFERENCE, best_head
from adprior_bench.quality.ranking.ranking_metrics import RankingDraws, measure_ranking
from adprior_bench.quality.stacking.stacked_ranker_tables import StackedRankerFigures
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import BarsPlot, Cell, Section, Table
from adprior_bench.report.tables import decimal, make_table, percent
from adprior_build.head.clamp_in_graph import CLAMP
from adprior_runtime.terminal.progress import track

MAX_FALSIFIER_SHARE: Final = 0.2
"""A falsifier's gain should be below this share of the real gain."""

_METRICS: Final = {
    "auc": "AUC",
    "user_auc": "AUC by user",
    "pr_auc": "PR-AUC",
    "normalised_entropy": "normalised entropy",
}
_FALSIFIERS: Final = (RANDOM, SHUFFLED, POPULARITY)
"""Forecasts without information on the user."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingGains:
    """Relative changes of PR-AUC against the reference, by forecast.

    Attributes:
        log: What the report calls the log.
        real: The model's.
        shipped: The bundle's own head with the model's forecast; None without one.
        falsifiers: Forecasts without information on the user.
        rivals: Baselines' forecasts, and blends with the model's.
        stacked: Changes of the base ranker stacked with a forecast, against the same without one.
    """

    log: str
    real: Estimate
    shipped: Estimate | None
    falsifiers: Mapping[str, Estimate]
    rivals: Mapping[str, Estimate]
    stacked: Mapping[str, Estimate]

    @property
    def baselines(self) -> dict[str, Estimate]:
        """The rivals that are no blends with the model."""
        return {k: v for k, v in self.rivals.items() if not k.startswith(blend_name(""))}

    def passing_falsifiers(self) -> list[str]:
        """Return the falsifiers whose gain is too large, or not distinct from the real one."""
        return [
            name
            for name, other in self.falsifiers.items()
            if other.value >= MAX_FALSIFIER_SHARE * self.real.value or other.overlaps(self.real)
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingFigures:
    """The gains, and the section."""

    gains: RankingGains
    section: Section


def ranking_section(
    result: RankingResult, stacked: StackedRankerFigures, resamples: int
) -> RankingFigures:
    """Measure all rankers on the test rows."""
    bootstrap = UserBootstrap(result.users, resamples=resamples)
    draws = {
        name: measure_ranking(logits, result.labels, bootstrap)
        for name, logits in track(result.logits.items(), desc="metrics of ranking", unit="ranker")
    }
    pr_auc = {
        name: found.gain(draws[REFERENCE], "pr_auc")
        for name, found in draws.items()
        if name not in (BASE, REFERENCE)
    }
    falsifiers = {name: gain for name, gain in pr_auc.items() if name in _FALSIFIERS}
    others = {result.real, SHIPPED, *falsifiers}
    gains = RankingGains(
        log=result.task.name,
        real=pr_auc[result.real],
        shipped=pr_auc.get(SHIPPED),
        falsifiers=falsifiers,
        rivals={name: gain for name, gain in pr_auc.items() if name not in others},
        stacked=stacked.gains,
    )
    return RankingFigures(
        gains=gains,
        section={
            "title": f"Ranking on a {result.task.name}",
            "notes": _notes(result),
            "content": [
                _ranker_table(draws, result),
                _gain_plot(gains, result),
                *stacked.tables,
                _falsifier_table(draws, gains, result.real),
                _head_table(result),
                *_feature_tables(result.task.importance),
            ],
        },
    )


def _notes(result: RankingResult) -> list[str]:
    slope, shift = result.recalibration
    requests = len(set(result.cases.tolist()))
    owners = len(set(result.users[result.labels > 0].tolist()))
    return [
        *result.task.notes,
        "Recalibration and heads are fitted on validation users. The figures come from test users: "
        f"{requests:,} requests with {len(result.labels):,} candidates, of which "
        f"{int(result.labels.sum()):,} positive ones of {owners:,} users.",
        "The reference is the base ranker with its own logit z recalibrated to "
        f"{slope:.3f} z {'-' if shift < 0 else '+'} {abs(shift):.3f}. All forecasts go "
        "through the same steps: cross-validation over the validation users chooses the form and "
        f"the penalty of each head. A head changes a logit by at most {CLAMP:g}. "
        + (
            f"`{SHIPPED}` is the bundle's own head with the {result.real} forecast."
            if SHIPPED in result.logits
            else "The bundle has no head of its own yet: `adprior fit-head` fits one."
        ),
    ]


def _feature_tables(importance: Mapping[str, float]) -> list[Table]:
    """Return the base ranker's features; no table for a logged ranker, whose are not known."""
    rows: list[dict[str, Cell]] = [
        {"feature": name, "share of the gain": share} for name, share in importance.items()
    ]
    columns = {"share of the gain": percent(1)}
    return [make_table("Features of the base ranker", rows, columns, detail=True)] if rows else []


def _ranker_table(draws: Mapping[str, RankingDraws], result: RankingResult) -> Table:
    rows: list[dict[str, Cell]] = []
    for name, found in draws.items():
        has_change = name not in (BASE, REFERENCE)
        row: dict[str, Cell] = {"forecast in the head": name}
        for metric, title in _METRICS.items():
            row[title] = estimate(getattr(found, metric))
        for metric, title in _METRICS.items():
            change = found.gain(draws[REFERENCE], metric) if has_change else None
            row[f"{title}, change"] = change
        rows.append(row)
    return make_table(
        f"Rankers on the {result.task.name}",
        rows,
        {title: decimal(4) for title in _METRICS.values()}
        | {f"{title}, change": percent(2, signed=True) for title in _METRICS.values()},
        highlight=lambda row: row["forecast in the head"] in (result.real, SHIPPED),
        note="Changes are relative to the reference, on the same resamples. Lower normalised "
        "entropy is better.",
    )


def _gain_plot(gains: RankingGains, result: RankingResult) -> BarsPlot:
    real = result.real
    shown = {real: gains.real}
    if gains.shipped is not None:
        shown[SHIPPED] = gains.shipped
    shown |= {f"{name} (falsifier)": gain for name, gain in gains.falsifiers.items()}
    shown |= gains.rivals
    return {
        "kind": "bars",
        "name": "ranking",
        "title": "Relative change of PR-AUC against the reference, by forecast in the head",
        "format": "percent",
        "digits": 2,
        "signed": True,
        "groups": [result.task.name],
        "series": [
            {"label": name, "estimates": [gain], "highlight": name in (real, SHIPPED)}
            for name, gain in shown.items()
        ],
    }


def _falsifier_table(draws: Mapping[str, RankingDraws], gains: RankingGains, real: str) -> Table:
    rows: list[dict[str, Cell]] = []
    for kind, group in (("falsifier", gains.falsifiers), ("rival", gains.rivals)):
        for name, gain in group.items():
            difference: Any = draws[real].pr_auc - draws[name].pr_auc
            rows.append(
                {
                    "forecast": name,
                    "kind": kind,
                    "PR-AUC, change": gain,
                    f"share of {real}'s change": (
                        gain.value / gains.real.value if gains.real.value > 0 else None
                    ),
                    "intervals overlap": "yes" if gain.overlaps(gains.real) else "no",
                    f"{real} minus this row": estimate(difference / draws[REFERENCE].pr_auc),
                }
            )
    return make_table(
        f"Falsifiers and rival forecasts in place of {real}'s forecast",
        rows,
        {
            "PR-AUC, change": percent(2, signed=True),
            f"share of {real}'s change": percent(0),
            f"{real} minus this row": percent(2, signed=True),
        },
        note="A falsifier has no information on the user: its change should be below "
        f"{cell_text(MAX_FALSIFIER_SHARE, percent(0))} of {real}'s change, and their intervals "
        "should not overlap. A rival forecast has information on the user: if it gains as "
        "much, the gain is not specific to the language model. Differences in the last column are "
        f"paired. The share is empty if {real} gains nothing.",
        detail=True,
    )


def _head_table(result: RankingResult) -> Table:
    (reference, *_), *_ = result.heads.values()
    rows: list[dict[str, Cell]] = [
        {"forecast": name, "head": form.name, "penalty": form.l2, "log-loss": form.log_loss}
        for name, form in [
            ("none", reference),
            *((name, best_head(forms)) for name, forms in result.heads.items()),
        ]
    ]
    return make_table(
        "Head of each forecast, chosen by cross-validation on validation users",
        rows,
        {"penalty": decimal(0), "log-loss": decimal(5)},
        highlight=lambda row: row["forecast"] == result.real,
        note="These log-losses are optimistic, because the same rows chose form and penalty.",
        detail=True,
    )
