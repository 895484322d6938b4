"""The whole evaluation: settings chosen on validation users, then test users scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.intervals import UserBootstrap, divide, estimate
from adprior_bench.quality.language_model import ABLATIONS, forecast_cases
from adprior_bench.quality.metrics import measure_forecasts, score
from adprior_bench.quality.rankers import (
    LLM,
    OWN,
    POPULARITY,
    Forecasts,
    blend_name,
    forecast_rankers,
)
from adprior_bench.quality.ranking import RANDOM, SHUFFLED, measure_ranking
from adprior_bench.quality.report.schema import Report, Section
from adprior_bench.quality.retrieval import measure_quotas
from adprior_bench.quality.retriever import fit_retriever
from adprior_bench.quality.retriever_tuning import tune_retriever
from adprior_bench.quality.sections.ablations import ablation_section
from adprior_bench.quality.sections.claims import claims_section
from adprior_bench.quality.sections.forecasts import ForecastFigures, forecast_section
from adprior_bench.quality.sections.protocol import protocol_section
from adprior_bench.quality.sections.ranking import RankingFigures, ranking_section
from adprior_bench.quality.sections.retrieval import (
    Filled,
    RetrievalFigures,
    retrieval_section,
)
from adprior_bench.quality.sections.tuning import tuning_section
from adprior_bench.quality.study import Splits, Study
from adprior_bench.quality.tuning import Tuned, tune
from adprior_build.catalogue import read_catalogue
from adprior_build.event_log import ColumnMap, Split
from adprior_runtime.bundle import CATALOGUE_FILE, HEAD_FILE
from adprior_runtime.forecaster import Forecaster
from adprior_runtime.head import PriorHead

__all__ = ["evaluate"]

_TRIALS: Final = 16
"""Settings of the conventional retriever that are tried."""

_HALVES: Final = Split(test_share=0.5, salt="judged")


def evaluate(
    bundle: Path,
    events: Path,
    profiles: Path | None,
    columns: ColumnMap,
    *,
    quick: bool,
    resamples: int,
    threads: int,
    validation_only: bool = False,
) -> Report:
    """Evaluate a bundle on a data set.

    Args:
        bundle: Its directory.
        events: The log it was trained on.
        profiles: The users' profiles.
        columns: Of both.
        quick: Try one setting of each baseline.
        resamples: Of the bootstrap.
        threads: CPU threads, 0 for all.
        validation_only: Judge on half of the validation users, tune on the other half.

    Raises:
        InvalidInputError: The data cannot be read, or nobody is unseen.
    """
    forecaster = Forecaster(bundle, threads=threads)
    training = forecaster.bundle.manifest.training
    catalogue = read_catalogue(forecaster.bundle.path(CATALOGUE_FILE))
    study = Study.read(
        Splits.recorded(training),
        catalogue,
        events,
        profiles,
        columns,
        forecaster.renderer.name_ids,
    )
    if validation_only:
        study = _halved(study)
    tuned = tune(study.training, study.validation, threads=threads, quick=quick)
    forecasts = forecast_rankers(forecaster, study, tuned)
    best = max(tuned, key=lambda each: each.best.recall).name

    targets = Targets.of(study.test)
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    blend_own, blend_best = blend_name(OWN), blend_name(best)
    figures = forecast_section(
        {name: score(forecasts.judged[name], targets) for name in forecasts.names},
        targets,
        bootstrap,
        ours=list(dict.fromkeys([LLM, blend_own, blend_best])),
        against=list(dict.fromkeys([POPULARITY, OWN, best])),
    )
    ranking = _rank(forecaster, study, forecasts, tuned, resamples, threads)
    retrieval = _retrieve(study, forecasts, best, bootstrap, trials=1 if quick else _TRIALS)
    ablations = _ablate(forecaster, study, targets, bootstrap, figures)
    claims = _claims(figures, ranking, retrieval, best)
    sections = [
        claims,
        protocol_section(study),
        tuning_section(study, forecasts, tuned, training, resamples=resamples),
        figures.section | {"notes": _blend_notes(forecasts)},
        *([retrieval.section] if retrieval else []),
        ranking.section,
        ablations,
    ]
    return _report(forecaster, sections, tuned, forecasts, validation_only=validation_only)


def _halved(study: Study) -> Study:
    """Judge half of the validation users in the test users' place."""
    return replace(
        study,
        validation=[c for c in study.validation if not _HALVES.is_test_user(c.user.user_id)],
        test=[c for c in study.validation if _HALVES.is_test_user(c.user.user_id)],
    )


def _rank(
    forecaster: Forecaster,
    study: Study,
    forecasts: Forecasts,
    tuned: Sequence[Tuned],
    resamples: int,
    threads: int,
) -> RankingFigures:
    fed = [LLM, *forecasts.shares, *(each.name for each in tuned)]
    result = measure_ranking(
        study,
        study.validation,
        study.test,
        {name: (forecasts.validation[name], forecasts.judged[name]) for name in fed},
        forecaster.advertisers,
        real=LLM,
        forecast_k=forecaster.bundle.forecast_k,
        shipped=PriorHead(forecaster.bundle.path(HEAD_FILE)),
        threads=threads,
    )
    return ranking_section(result, resamples, LLM)


def _retrieve(
    study: Study, forecasts: Forecasts, best: str, bootstrap: UserBootstrap, *, trials: int
) -> RetrievalFigures | None:
    if not any(any(user.items) for user in study.learnt):
        return None
    tuning = tune_retriever(study, trials=trials)
    retriever = fit_retriever(study, tuning.settings)

    def filled(title: str, name: str | None) -> Filled:
        validation, judged = (
            measure_quotas(retriever, study, cases, None if name is None else matrices[name])
            for cases, matrices in (
                (study.validation, forecasts.validation),
                (study.test, forecasts.judged),
            )
        )
        return Filled(title=title, validation=validation, test=judged)

    rivals: dict[str, str | None] = {"no forecast, advertisers that the list lacks": None}
    rivals |= {f"{name}'s forecast": name for name in dict.fromkeys([POPULARITY, OWN, best])}
    others = [filled(title, name) for title, name in rivals.items()]
    return retrieval_section(filled(f"the {LLM}'s forecast", LLM), others, tuning, bootstrap)


def _ablate(
    forecaster: Forecaster,
    study: Study,
    targets: Targets,
    bootstrap: UserBootstrap,
    figures: ForecastFigures,
) -> Section:
    everyone = cohorts(targets)["all"]
    altered = {
        name: (
            title,
            measure_forecasts(
                score(
                    forecast_cases(forecaster, study, study.test, alter=alter, title=title),
                    targets,
                ),
                targets,
                everyone,
                bootstrap,
            ),
        )
        for name, (title, alter) in ABLATIONS.items()
    }
    return ablation_section(figures.draws["all"][LLM], altered)


def _claims(
    figures: ForecastFigures,
    ranking: RankingFigures,
    retrieval: RetrievalFigures | None,
    best: str,
) -> Section:
    recall = {name: found["recall@10"] for name, found in figures.draws["all"].items()}
    calibration = figures.calibrations[LLM]
    return claims_section(
        blend_gain=estimate(recall[blend_name(OWN)] - recall[OWN]),
        over_popularity=estimate(divide(recall[LLM], recall[POPULARITY])),
        over_best=estimate(divide(recall[LLM], recall[best])),
        best_baseline=best,
        ranking_gains=ranking.gains,
        real=LLM,
        falsifiers=(RANDOM, SHUFFLED, POPULARITY),
        ece=estimate(calibration.ece, centred=True),
        predicted_over_observed=estimate(calibration.predicted_over_observed),
        retrieval=retrieval,
    )


def _blend_notes(forecasts: Forecasts) -> list[str]:
    shares = ", ".join(f"`{name}` {share:.0%}" for name, share in forecasts.shares.items())
    return [
        f"Blends are mixtures of probabilities; the model's share in them was chosen on "
        f"validation users: {shares}."
    ]


def _report(
    forecaster: Forecaster,
    sections: Sequence[Section],
    tuned: Sequence[Tuned],
    forecasts: Forecasts,
    *,
    validation_only: bool,
) -> Report:
    manifest = forecaster.bundle.manifest
    notes = [f"Origin of the data: {manifest.origin}."] if manifest.origin else []
    if manifest.training.get("start") == "scratch":
        notes.append(
            "The model was trained from scratch on this log alone: the knowledge of the world that "
            "a pre-trained model brings is absent from every figure."
        )
    if validation_only:
        notes.append(
            "Half of the validation users were judged: they stand wherever this report says test "
            "users; the test users were left alone."
        )
    return {
        "title": f"Forecast quality of bundle {manifest.bundle_id}",
        "notes": notes,
        "sections": sections,
        "data": {
            "bundle_id": manifest.bundle_id,
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
        },
    }
