"""What an evaluation says before its first table, and to machines: what it was made of and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adprior_bench.data.log_origin import LogOrigin
from adprior_bench.quality.baselines.tuning import Tuned
from adprior_bench.quality.rankers import Forecasts
from adprior_bench.quality.settings import Settings
from adprior_bench.quality.study import Study
from adprior_runtime.bundle import Manifest


def warnings(study: Study, whole: Study, origin: LogOrigin, settings: Settings) -> list[str]:
    """Return what a reader must know before any figure.

    Args:
        study: What was judged.
        whole: The same before a sample was drawn of it.
        origin: Of the log.
        settings: How it was done.
    """
    found = origin.sentences(len(study.learnt))
    if settings.quick:
        found.append(
            "Quick: one small setting of each baseline was tried, and intervals are of "
            f"{settings.resamples} resamples. Baselines are weaker than tuned ones, which flatters "
            "the model: run it without `--quick` before anything is decided."
        )
    if settings.validation_only:
        found.append(
            "Half of the validation users were judged: they stand wherever this report says test "
            "users; the test users were left alone."
        )
    if settings.max_cases is not None:
        found.append(
            f"A sample: of {len(whole.test):,} days {len(study.test):,} were judged, of "
            f"{len(whole.validation):,} validation days {len(study.validation):,} chose settings "
            f"(`--max-cases {settings.max_cases}`)."
        )
    return found


def notes(manifest: Manifest, study: Study) -> list[str]:
    """Return what a reader should know of data and model."""
    found = [f"Origin of the model's training data: {manifest.origin}."] if manifest.origin else []
    found.append(f"The log: {study.log.sentence()}. Actions: {study.log.action_words()}.")
    if manifest.training.get("start") == "scratch":
        found.append(
            "The model was trained from scratch on one log alone: the knowledge of the world that "
            "a pre-trained model brings is absent from every figure."
        )
    return found


def machine_data(
    study: Study,
    tuned: Sequence[Tuned],
    forecasts: Forecasts,
    origin: LogOrigin,
    settings: Settings,
) -> dict[str, Any]:
    """Return what is for machines."""
    return {
        "quick": settings.quick,
        "resamples": settings.resamples,
        "validation_only": settings.validation_only,
        "max_cases": settings.max_cases,
        "log": study.log.to_json() | origin.to_json(),
        "split": study.splits.to_json(),
        "blend_shares": dict(forecasts.shares),
        "tuning": {
            each.name: [
                {
                    "settings": dict(trial.settings),
                    "recall": trial.recall,
                    "seconds": trial.seconds,
                }
                for trial in each.trials
            ]
            for each in tuned
        },
    }
