"""The whole evaluation: validation users choose settings, then test users are scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from adprior_bench.data.kept_results import KeptResults, keep_results
from adprior_bench.data.log_origin import LogOrigin, require_training_log
from adprior_bench.data.progress import say
from adprior_bench.quality.ablations import ablation_section
from adprior_bench.quality.baselines.registry import OWN, POPULARITY, baseline_families
from adprior_bench.quality.baselines.tuning import TunedBaseline, tune
from adprior_bench.quality.cohorts import Targets
from adprior_bench.quality.evaluation_settings import Settings
from adprior_bench.quality.forecast_tables import ForecastFigures, measure_rankers
from adprior_bench.quality.forecasts import (
    LLM,
    Forecasts,
    blend_name,
    forecast_cases,
    forecast_identity,
    forecast_rankers,
)
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import UserBootstrap
from adprior_bench.quality.metrics import Float32Array, score
from adprior_bench.quality.ranking.experiment import run_ranking
from adprior_bench.quality.ranking.ranking_tables import RankingFigures, ranking_section
from adprior_bench.quality.ranking.ranking_task import logged_task, simulated_task
from adprior_bench.quality.ranking.request_forecasts import forecast_requests
from adprior_bench.quality.ranking.request_log import RequestLog, read_request_log
from adprior_bench.quality.report_notes import machine_data, notes, protocol_section, warnings
from adprior_bench.quality.retrieval.quotas import measure_quotas
from adprior_bench.quality.retrieval.retrieval_tables import (
    Filled,
    RetrievalFigures,
    retrieval_section,
)
from adprior_bench.quality.retrieval.retriever_tuning import tune_retriever
from adprior_bench.quality.study import Splits, Study
from adprior_bench.quality.tuning_table import tuning_section
from adprior_bench.quality.verdict import (
    calibration_verdict,
    ranking_verdict,
    retrieval_verdict,
)
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import Report
from adprior_bench.report.tables import percent
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.bundle import CATALOGUE_FILE, HEAD_FILE
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.head.head import PriorHead

COMMAND: Final = "adprior bench quality"
"""The prefix of messages."""

_RETRIEVER_TRIALS: Final = 16


@contextmanager
def evaluate(
    bundle: Path, events: Path, profiles: Path | None, columns: Path, settings: Settings
) -> Iterator[Report]:
    """Yield the report on a bundle; intermediate results are deleted when the block succeeds.

    Raises:
        InvalidInputError: The data cannot be read, are not the bundle's, or no user is unseen.
    """
    forecaster = Forecaster(bundle, threads=settings.threads)
    manifest = forecaster.bundle.manifest
    origin = require_training_log(manifest, events, profiles, columns, other_log=settings.other_log)
    say(COMMAND, f"reading {events}")
    whole = Study.read(
        Splits.recorded(manifest.training),
        read_catalogue(forecaster.bundle.path(CATALOGUE_FILE)),
        events,
        profiles,
        ColumnMap.load(columns),
        forecaster.renderer.name_ids,
    )
    whole = whole.without_test_users() if settings.validation_only else whole
    study = whole if settings.max_cases is None else whole.limited(settings.max_cases)
    say(COMMAND, whole.log.sentence(), study.sentence())
    requests = _read_requests(forecaster, study, settings)
    identity = forecast_identity(manifest.bundle_id, settings.threads)
    with keep_results(settings.work, identity, command=COMMAND) as kept:
        yield _evaluate(forecaster, study, whole, requests, origin, settings, kept)


def _evaluate(
    forecaster: Forecaster,
    study: Study,
    whole: Study,
    requests: RequestLog | None,
    origin: LogOrigin,
    settings: Settings,
    kept: KeptResults,
) -> Report:
    manifest = forecaster.bundle.manifest
    families = baseline_families(study.training, threads=settings.threads, quick=settings.quick)
    tuned = tune(families, study.training, study.validation, study.test, kept)
    forecasts = forecast_rankers(forecaster, study, tuned, kept)
    targets = Targets.of(study.test)
    bootstrap = UserBootstrap(targets.users, resamples=settings.resamples)
    figures = _measure(forecasts, targets, bootstrap)
    ranking = _rank(forecaster, study, requests, forecasts, tuned, settings, kept)
    retrieval = _retrieve(study, forecasts, bootstrap, quick=settings.quick)
    sections = [
        protocol_section(study),
        tuning_section(study, forecasts, tuned, manifest.training, resamples=settings.resamples),
        figures.section,
        *([retrieval.section] if retrieval else []),
        ranking.section,
        ablation_section(forecaster, study, bootstrap, figures.draws[LLM], kept),
    ]
    return {
        "title": f"Forecast quality of bundle {manifest.bundle_id}",
        "warnings": warnings(study, whole, origin, settings),
        "verdict": [
            retrieval_verdict(retrieval, events=study.log.event_words()),
            ranking_verdict(ranking.gains),
            calibration_verdict(figures.calibrations[LLM]),
        ],
        "notes": notes(manifest, study),
        "sections": sections,
        "data": {
            "bundle_id": manifest.bundle_id,
            **machine_data(study, tuned, forecasts, origin, settings),
        },
    }


def _measure(forecasts: Forecasts, targets: Targets, bootstrap: UserBootstrap) -> ForecastFigures:
    shares = ", ".join(
        f"`{name}` {cell_text(share, percent(0))}" for name, share in forecasts.shares.items()
    )
    return measure_rankers(
        {name: score(forecasts.test[name], targets) for name in forecasts.names},
        targets,
        bootstrap,
        ours=list(dict.fromkeys([LLM, blend_name(OWN), blend_name(forecasts.best)])),
        rivals=list(dict.fromkeys([POPULARITY, OWN, forecasts.best])),
        notes=[
            "A blend is a weighted mean of two forecasts. The model's weight was chosen on the "
            f"validation users: {shares}."
        ],
    )


def _read_requests(forecaster: Forecaster, study: Study, settings: Settings) -> RequestLog | None:
    if settings.ranking_log is None:
        return None
    log = read_request_log(
        settings.ranking_log, study, forecaster.renderer.name_ids, settings.max_cases
    )
    say(COMMAND, *(f"{settings.ranking_log}: {sentence}" for sentence in log.sentences()))
    return log


def _rank(
    forecaster: Forecaster,
    study: Study,
    requests: RequestLog | None,
    forecasts: Forecasts,
    tuned: Sequence[TunedBaseline],
    settings: Settings,
    kept: KeptResults,
) -> RankingFigures:
    def model(cases: Sequence[EncodedCase], title: str) -> Float32Array:
        return forecast_cases(forecaster, study, cases, title=title, kept=kept)

    if requests is None:
        task = simulated_task(study, study.validation, study.test, threads=settings.threads)
        names = [LLM, *forecasts.shares, *(each.name for each in tuned)]
        compared = {name: (forecasts.validation[name], forecasts.test[name]) for name in names}
    else:
        task = logged_task(study, requests, threads=settings.threads)
        compared = forecast_requests(requests, model, tuned, forecasts.shares)
    head = PriorHead(forecaster.bundle.path(HEAD_FILE))
    result = run_ranking(
        task,
        compared,
        forecaster.advertisers,
        real=LLM,
        forecast_k=forecaster.bundle.manifest.forecast_k,
        shipped=head if head.is_fitted else None,
    )
    return ranking_section(result, settings.resamples)


def _retrieve(
    study: Study, forecasts: Forecasts, bootstrap: UserBootstrap, *, quick: bool
) -> RetrievalFigures | None:
    if not any(any(user.items) for user in study.learnt):
        return None
    tuning = tune_retriever(study, trials=1 if quick else _RETRIEVER_TRIALS)

    def fill(title: str, name: str | None) -> Filled:
        validation, test = (
            measure_quotas(tuning.retriever, study, cases, None if name is None else matrices[name])
            for cases, matrices in (
                (study.validation, forecasts.validation),
                (study.test, forecasts.test),
            )
        )
        return Filled(title=title, validation=validation, test=test)

    rivals = [
        fill(f"{name}'s forecast", name)
        for name in dict.fromkeys([POPULARITY, OWN, forecasts.best])
    ]
    return retrieval_section(
        fill(f"the {LLM}'s forecast", LLM), fill("no forecast", None), rivals, tuning, bootstrap
    )
