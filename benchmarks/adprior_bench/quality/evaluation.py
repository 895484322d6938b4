"""The whole evaluation: settings chosen on validation users, then test users scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from adprior_bench.data.kept_results import KeptResults, keep_results
from adprior_bench.data.log_origin import LogOrigin, require_training_log
from adprior_bench.data.progress import say
from adprior_bench.quality.ablations import ablation_section
from adprior_bench.quality.baselines.registry import tune
from adprior_bench.quality.baselines.tuning import Tuned
from adprior_bench.quality.claims import claims_section
from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.forecast_tables import ForecastFigures, forecast_section
from adprior_bench.quality.intervals import UserBootstrap, divide, estimate
from adprior_bench.quality.metrics import measure_forecasts, score
from adprior_bench.quality.model_forecasts import ABLATIONS, forecast_cases, forecast_identity
from adprior_bench.quality.opening import machine_data, notes, warnings
from adprior_bench.quality.protocol import protocol_section
from adprior_bench.quality.rankers import (
    LLM,
    OWN,
    POPULARITY,
    Forecasts,
    blend_name,
    forecast_rankers,
)
from adprior_bench.quality.ranking.experiment import RANDOM, SHUFFLED, measure_ranking
from adprior_bench.quality.ranking.ranking_tables import RankingFigures, ranking_section
from adprior_bench.quality.retrieval.quotas import measure_quotas
from adprior_bench.quality.retrieval.retrieval_tables import (
    Filled,
    RetrievalFigures,
    retrieval_section,
)
from adprior_bench.quality.retrieval.retriever import fit_retriever
from adprior_bench.quality.retrieval.retriever_tuning import tune_retriever
from adprior_bench.quality.settings import Settings
from adprior_bench.quality.study import Splits, Study
from adprior_bench.quality.tuning_table import tuning_section
from adprior_bench.quality.verdict import (
    calibration_verdict,
    ranking_verdict,
    retrieval_verdict,
)
from adprior_bench.report.schema import Report, Section
from adprior_build.catalogue.catalogue import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.split import Split
from adprior_build.head.onnx_head import is_identity_head
from adprior_runtime.bundle import CATALOGUE_FILE, HEAD_FILE
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.head.head import PriorHead

COMMAND: Final = "adprior bench quality"
"""Begins what is told while it works."""

_TRIALS: Final = 16
"""Settings of the conventional retriever that are tried."""

_UNFILLED: Final = "the same places without a forecast"
"""The rivals that can fill the retrieval slots reserved for the forecast."""

_HALVES: Final = Split(test_share=0.5, salt="judged")


@contextmanager
def evaluate(
    bundle: Path, events: Path, profiles: Path | None, columns: Path, settings: Settings
) -> Iterator[Report]:
    """Yield a bundle's evaluation on a data set; what is kept for a killed run goes afterwards.

    Args:
        bundle: Its directory.
        events: The log it was trained on.
        profiles: The users' profiles.
        columns: The column map of both.
        settings: How.

    Raises:
        InvalidInputError: The data cannot be read, are not the bundle's, or nobody is unseen.
    """
    forecaster = Forecaster(bundle, threads=settings.threads)
    manifest = forecaster.bundle.manifest
    origin = require_training_log(manifest, events, profiles, columns, other_log=settings.other_log)
    say(COMMAND, f"reading {events}")
    splits = Splits.recorded(manifest.training)
    catalogue = read_catalogue(forecaster.bundle.path(CATALOGUE_FILE))
    name_ids = forecaster.renderer.name_ids
    whole = Study.read(splits, catalogue, events, profiles, ColumnMap.load(columns), name_ids)
    whole = _halved(whole) if settings.validation_only else whole
    study = whole if settings.max_cases is None else whole.limited(settings.max_cases)
    say(COMMAND, whole.log.sentence(), study.sentence())
    identity = forecast_identity(manifest.bundle_id, settings.threads)
    with keep_results(settings.work, identity, command=COMMAND) as kept:
        yield _evaluate(forecaster, study, whole, origin, settings, kept)


def _evaluate(
    forecaster: Forecaster,
    study: Study,
    whole: Study,
    origin: LogOrigin,
    settings: Settings,
    kept: KeptResults,
) -> Report:
    training = forecaster.bundle.manifest.training
    tuned = tune(
        study.training,
        study.validation,
        study.test,
        threads=settings.threads,
        quick=settings.quick,
        kept=kept,
    )
    forecasts = forecast_rankers(forecaster, study, tuned, kept)
    best = max(tuned, key=lambda each: each.best.recall).name

    targets = Targets.of(study.test)
    bootstrap = UserBootstrap(targets.users, resamples=settings.resamples)
    blend_own, blend_best = blend_name(OWN), blend_name(best)
    figures = forecast_section(
        {name: score(forecasts.judged[name], targets) for name in forecasts.names},
        targets,
        bootstrap,
        ours=list(dict.fromkeys([LLM, blend_own, blend_best])),
        against=list(dict.fromkeys([POPULARITY, OWN, best])),
    )
    ranking = _rank(forecaster, study, forecasts, tuned, settings)
    retrieval = _retrieve(
        study, forecasts, best, bootstrap, trials=1 if settings.quick else _TRIALS
    )
    ablations = _ablate(forecaster, study, targets, bootstrap, figures, kept)
    sections = [
        _claims(figures, ranking, retrieval, best),
        protocol_section(study),
        tuning_section(study, forecasts, tuned, training, resamples=settings.resamples),
        figures.section | {"notes": _blend_notes(forecasts)},
        *([retrieval.section] if retrieval else []),
        ranking.section,
        ablations,
    ]
    return {
        "title": f"Forecast quality of bundle {forecaster.bundle.bundle_id}",
        "warnings": warnings(study, whole, origin, settings),
        "verdict": [
            retrieval_verdict(retrieval, events=study.log.event_words(), unfilled=_UNFILLED),
            ranking_verdict(ranking.gains, LLM),
            calibration_verdict(figures.calibrations[LLM]),
        ],
        "notes": notes(forecaster.bundle.manifest, study),
        "sections": sections,
        "data": {
            "bundle_id": forecaster.bundle.bundle_id,
            **machine_data(study, tuned, forecasts, origin, settings),
        },
    }


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
    settings: Settings,
) -> RankingFigures:
    head = forecaster.bundle.path(HEAD_FILE)
    fed = [LLM, *forecasts.shares, *(each.name for each in tuned)]
    result = measure_ranking(
        study,
        study.validation,
        study.test,
        {name: (forecasts.validation[name], forecasts.judged[name]) for name in fed},
        forecaster.advertisers,
        real=LLM,
        forecast_k=forecaster.bundle.forecast_k,
        shipped=None if is_identity_head(head) else PriorHead(head),
        threads=settings.threads,
    )
    return ranking_section(result, settings.resamples, LLM)


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

    rivals: dict[str, str | None] = {_UNFILLED: None}
    rivals |= {f"{name}'s forecast": name for name in dict.fromkeys([POPULARITY, OWN, best])}
    others = [filled(title, name) for title, name in rivals.items()]
    return retrieval_section(filled(f"the {LLM}'s forecast", LLM), others, tuning, bootstrap)


def _ablate(
    forecaster: Forecaster,
    study: Study,
    targets: Targets,
    bootstrap: UserBootstrap,
    figures: ForecastFigures,
    kept: KeptResults,
) -> Section:
    everyone = cohorts(targets)["all"]
    altered = {
        name: (
            title,
            measure_forecasts(
                score(
                    forecast_cases(
                        forecaster,
                        study,
                        study.test,
                        alter=alter,
                        title=f"forecasts, {title}",
                        kept=kept,
                    ),
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
