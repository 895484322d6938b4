"""The report's section on tuning: what was tried for each ranker, and its validation figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adprior_bench.quality.baselines.choices import Trial, TunedBaseline
from adprior_bench.quality.cohorts import Targets
from adprior_bench.quality.forecasts import LLM, Forecasts
from adprior_bench.quality.intervals import UserBootstrap, estimate
from adprior_bench.quality.metrics import case_recalls
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Cell, Section
from adprior_bench.report.tables import COUNT, make_table, percent, points


def tuning_section(
    study: Study,
    forecasts: Forecasts,
    tuned: Sequence[TunedBaseline],
    training: Mapping[str, Any],
    *,
    resamples: int,
) -> Section:
    """Return the section.

    ``training`` is the bundle's training record.
    """
    settings = training.get("settings", {})
    minutes, epochs = settings.get("minutes"), len(training.get("losses", []))
    time = f"{epochs} epochs" + (f" within {minutes:g} minutes" if minutes else "")
    return {
        "title": "Tuning",
        "notes": [
            f"The language model was fine-tuned from `{training.get('start')}`. That run took "
            f"{time}; validation users chose its epoch; earlier runs are not counted here. Each "
            "setting of the baselines was fitted on the training users and scored by recall@10 on "
            "the validation users' cases, of all advertisers and of those new to the user."
        ],
        "content": [
            make_table(
                "Rankers on validation users",
                _rows(study, forecasts, tuned, resamples),
                {
                    "settings tried": COUNT,
                    "seconds": COUNT,
                    "recall@10": percent(2),
                    "lowest recall@10 tried": percent(2),
                    "their recall@10": percent(2),
                    f"{LLM} minus this row": points(2),
                },
                highlight=lambda row: row["ranker"] == LLM,
                note="These figures are optimistic, because the same users chose the settings.",
                detail=True,
            )
        ],
    }


def _rows(
    study: Study, forecasts: Forecasts, tuned: Sequence[TunedBaseline], resamples: int
) -> list[dict[str, Cell]]:
    bootstrap = UserBootstrap(Targets.of(study.validation).users, resamples=resamples)
    draws = {
        name: bootstrap.mean(case_recalls(forecasts.validation[name], study.validation))
        for name in forecasts.names
    }
    rows: list[dict[str, Cell]] = []

    def add(
        name: str,
        settings: str,
        recalls: Sequence[float] = (),
        seconds: float | None = None,
        new: tuple[str | None, float | None] = (None, None),
    ) -> None:
        rows.append(
            {
                "ranker": name,
                "settings tried": len(recalls) or None,
                "seconds": None if seconds is None else round(seconds),
                "chosen settings": settings,
                "recall@10": estimate(draws[name]),
                "lowest recall@10 tried": min(recalls, default=None),
                f"{LLM} minus this row": (
                    None if name == LLM else estimate(draws[LLM] - draws[name])
                ),
                "settings for new advertisers": new[0],
                "their recall@10": new[1],
            }
        )

    add(LLM, "the bundle")
    for name, found in forecasts.blends.items():
        add(name, f"model's weight {forecasts.shares[name]}", list(found.values()))
    for each in tuned:
        add(
            each.name,
            _settings(each.best),
            [trial.recall for trial in each.trials],
            sum(trial.seconds for trial in each.trials),
            (_settings(each.explore.trial), each.explore.trial.explore),
        )
    return rows


def _settings(trial: Trial) -> str:
    return ", ".join(f"{key} {value}" for key, value in trial.settings.items())
