"""What every ranker's tuning cost, and what it has on the users that it was tuned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adprior_bench.quality.baselines.tuning import Tuned, case_recalls
from adprior_bench.quality.cohorts import Targets
from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.rankers import LLM, Forecasts
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One ranker on the validation users.

    Attributes:
        name: The ranker.
        chosen: Its settings, as text.
        recalls: recall@10 under each setting tried; empty where validation chose otherwise.
        seconds: That it took; None where nothing was fitted.
        recall: recall@10 under the chosen one.
        model_minus_this: The language model's recall@10 minus that, paired; None for its own.
    """

    name: str
    chosen: str
    recalls: Sequence[float]
    seconds: float | None
    recall: Estimate
    model_minus_this: Estimate | None


def tuning_section(
    study: Study,
    forecasts: Forecasts,
    tuned: Sequence[Tuned],
    training: Mapping[str, Any],
    *,
    resamples: int,
) -> Section:
    """Say what was tried, for how long, and what the language model's training took.

    Args:
        study: Whose validation cases chose.
        forecasts: Of every ranker.
        tuned: The baselines.
        training: The bundle's record.
        resamples: Of the bootstrap over the validation users.
    """
    rows = _rows(study, forecasts, tuned, resamples)
    settings = training.get("settings", {})
    minutes, epochs = settings.get("minutes"), len(training.get("losses", []))
    spent = f"{epochs} epochs" + (f" within {minutes:g} minutes" if minutes else "")
    start = training.get("start")
    origin = (
        "from scratch, its first weights made to copy and to know popularity: the knowledge of the "
        "world that a pre-trained model brings is absent from every figure"
        if start == "scratch"
        else f"from the checkpoint `{start}`"
    )
    return {
        "title": "Tuning",
        "notes": [
            f"The language model started {origin}. The one training that made it took {spent}, and "
            "validation users chose the epoch to keep; what was tried before it is not counted "
            "here. Of the others every setting was fitted on the training users and scored by "
            "recall@10 on the validation users' cases.",
        ],
        "content": [
            {
                "kind": "table",
                "title": "Rankers on validation users",
                "detail": True,
                "columns": [
                    {"title": "ranker"},
                    {"title": "settings tried", "format": "count"},
                    {"title": "seconds", "format": "count"},
                    {"title": "chosen"},
                    {"title": "recall@10", "format": "percent", "digits": 2},
                    {"title": "lowest tried", "format": "percent", "digits": 2},
                    {
                        "title": "the model minus this",
                        "format": "points",
                        "digits": 2,
                        "signed": True,
                    },
                ],
                "rows": [
                    [
                        row.name,
                        len(row.recalls) or None,
                        None if row.seconds is None else round(row.seconds),
                        row.chosen,
                        row.recall,
                        min(row.recalls, default=None),
                        row.model_minus_this,
                    ]
                    for row in rows
                ],
                "highlight": [0],
                "note": "The figures of what was chosen flatter it: the same users chose.",
            }
        ],
    }


def _rows(study: Study, forecasts: Forecasts, tuned: Sequence[Tuned], resamples: int) -> list[_Row]:
    """Return every ranker's figures on the validation users, the model's first."""
    bootstrap = UserBootstrap(Targets.of(study.validation).users, resamples=resamples)
    draws = {
        name: bootstrap.mean(case_recalls(forecasts.validation[name], study.validation))
        for name in forecasts.names
    }
    chosen: dict[str, tuple[str, Sequence[float], float | None]] = {
        LLM: ("the bundle", (), None),
        **{
            name: (f"the model's share {forecasts.shares[name]}", list(recalls.values()), None)
            for name, recalls in forecasts.blends.items()
        },
        **{
            each.name: (
                ", ".join(f"{key} {value}" for key, value in each.best.settings.items()),
                [trial.recall for trial in each.trials],
                sum(trial.seconds for trial in each.trials),
            )
            for each in tuned
        },
    }
    return [
        _Row(
            name=name,
            chosen=settings,
            recalls=recalls,
            seconds=seconds,
            recall=estimate(draws[name]),
            model_minus_this=None if name == LLM else estimate(draws[LLM] - draws[name]),
        )
        for name, (settings, recalls, seconds) in chosen.items()
    ]
