"""The whole evaluation: validation users choose settings, then test users are scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from adprior_bench.data.kept_results import KeptResults, keep_results, reused_results
from adprior_bench.data.log_origin import LogOrigin, require_training_log
from adprior_bench.data.progress import say
from adprior_bench.quality.ablations import ablation_section
from adprior_bench.quality.baselines.choices import TunedBaseline
from adprior_bench.quality.baselines.registry import (
    POPULARITY,
    SASREC,
    baseline_families,
)
from adprior_bench.quality.baselines.tuning import tune
from adprior_bench.quality.cohorts import Targets
from adprior_bench.quality.evaluation_settings import (
    ABLATIONS,
    INTERESTS,
    RANKING,
    RETRIEVAL,
    SECTIONS,
    STACKING,
    Settings,
)
from adprior_bench.quality.explore_experiment import run_explore
from adprior_bench.quality.forecast_tables import measure_all_forecasts
from adprior_bench.quality.forecasts import (
    LLM,
    Forecasts,
    all_forecasts,
    best_for_new,
)
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.interests.experiment import run_interests
from adprior_bench.quality.interests.interest_forecasts import InterestForecasts
from adprior_bench.quality.intervals import UserBootstrap
from adprior_bench.quality.metrics import Float32Array, score
from adprior_bench.quality.model_forecasts import LanguageModel, forecast_identity
from adprior_bench.quality.ranking.experiment import run_ranking
from adprior_bench.quality.ranking.ranking_tables import RankingFigures, ranking_section
from adprior_bench.quality.ranking.ranking_task import logged_task, simulated_task
from adprior_bench.quality.ranking.request_forecasts import forecast_requests
from adprior_bench.quality.ranking.request_log import RequestLog, read_request_log
from adprior_bench.quality.report_notes import machine_data, notes, protocol_section, warnings
from adprior_bench.quality.retrieval.experiment import run_retrieval
from adprior_bench.quality.stacking.experiment import run_stacking
from adprior_bench.quality.stacking.stacked_ranker import stack_ranker
from adprior_bench.quality.stacking.stacked_ranker_tables import stacked_ranker_tables
from adprior_bench.quality.study import Splits, Study
from adprior_bench.quality.tuning_table import tuning_section
from adprior_bench.quality.verdict import (
    calibration_verdict,
    explore_verdict,
    newcomer_verdict,
    ranking_verdict,
    retrieval_verdict,
    stacking_verdict,
)
from adprior_bench.report.schema import Report
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.bundle import CATALOGUE_FILE, HEAD_FILE
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.head.head import PriorHead

COMMAND: Final = "adprior bench quality"
"""The prefix of messages."""


@contextmanager
def evaluate(
    bundle: Path, events: Path, profiles: Path | None, columns: Path, settings: Settings
) -> Iterator[Report]:
    """Yield the report on a bundle; intermediate results are deleted when the block succeeds.

    Raises:
        InvalidInputError: The data cannot be read, are not the bundle's, or no user is unseen.
    """
    forecaster = Forecaster(bundle, threads=1)
    manifest = forecaster.bundle.manifest
    _require_interests(forecaster, settings)
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
    if settings.is_in_sample:
        whole = whole.judged_on_validation()
    elif settings.validation_only:
        whole = whole.without_test_users()
    study = whole if settings.max_cases is None else whole.limited(settings.max_cases)
    say(COMMAND, whole.log.sentence(), study.sentence())
    requests = _read_requests(forecaster, study, settings)
    identity = forecast_identity(manifest.bundle_id)
    with keep_results(settings.work, identity, command=COMMAND) as kept:
        others = [Forecaster(bundle, threads=1) for _ in range(1, settings.threads)]
        model = LanguageModel(forecasters=[forecaster, *others], kept=kept)
        baselines = kept if settings.baselines is None else reused_results(settings.baselines)
        yield _evaluate(model, baselines, study, whole, requests, origin, settings)


def _evaluate(
    model: LanguageModel,
    baselines: KeptResults,
    study: Study,
    whole: Study,
    requests: RequestLog | None,
    origin: LogOrigin,
    settings: Settings,
) -> Report:
    manifest = model.forecaster.bundle.manifest
    families = baseline_families(study.training, threads=settings.threads, quick=settings.quick)
    tuned = tune(families, study.training, study.validation, study.test, baselines)
    with_interests = INTERESTS in settings.sections
    validation, test = model.forecast_groups(study, with_interests=with_interests)
    mine = validation.probabilities, test.probabilities
    forecasts = all_forecasts(mine, tuned, study.validation)
    targets = Targets.of(study.test)
    bootstrap = UserBootstrap(targets.users, resamples=settings.resamples)
    scored = {name: score(forecasts.test[name], targets) for name in forecasts.names}
    figures = measure_all_forecasts(forecasts, scored, targets, bootstrap)
    explore = run_explore(
        model, study, mine, tuned, scored, test.exact, resamples=settings.resamples
    )
    stacking = ranking = retrieval = interests = None
    if with_interests and model.interests is not None:
        interests = InterestForecasts(
            catalogue=model.interests, validation=validation.interests, test=test.interests
        )
    if STACKING in settings.sections:
        categories = study.training.advertiser_categories
        stacking = run_stacking(
            study,
            forecasts,
            tuned,
            model.forecaster.advertisers,
            forecast_k=manifest.forecast_k,
            resamples=settings.resamples,
            threads=settings.threads,
            interests=interests.of_advertisers(categories) if interests else None,
        )
    if RANKING in settings.sections:
        ranking = _rank(model, study, requests, forecasts, tuned, settings)
    if RETRIEVAL in settings.sections:
        retrieval = run_retrieval(
            study, forecasts, best_for_new(tuned), bootstrap, quick=settings.quick
        )
    sections = [
        protocol_section(study),
        tuning_section(study, forecasts, tuned, manifest.training, resamples=settings.resamples),
        figures.section,
        *(each.section for each in (explore, stacking, retrieval, ranking) if each),
    ]
    if interests is not None:
        name_ids = model.forecaster.renderer.name_ids
        measured = run_interests(interests, study, name_ids, resamples=settings.resamples)
        sections += [] if measured is None else [measured]
    if ABLATIONS in settings.sections:
        sections.append(
            ablation_section(model, study, test.probabilities, resamples=settings.resamples)
        )
    verdict = [] if explore is None else [explore_verdict(explore.explore)]
    if explore is not None and explore.newcomers and explore.newcomers_only:
        verdict.append(newcomer_verdict(explore.newcomers, explore.newcomers_only))
    if stacking:
        verdict.append(stacking_verdict(stacking))
    if RETRIEVAL in settings.sections:
        verdict.append(retrieval_verdict(retrieval, events=study.log.event_words()))
    if ranking:
        verdict.append(ranking_verdict(ranking.gains))
    verdict.append(calibration_verdict(figures.calibrations[LLM]))
    return {
        "title": f"Forecast quality of bundle {manifest.bundle_id}",
        "warnings": warnings(study, whole, origin, settings),
        "verdict": verdict,
        "notes": notes(manifest, study),
        "sections": sections,
        "data": {
            "bundle_id": manifest.bundle_id,
            **machine_data(study, tuned, forecasts, origin, settings),
        },
    }


def _require_interests(forecaster: Forecaster, settings: Settings) -> None:
    """Refuse a bundle without interests if their section was asked for by name."""
    wanted = INTERESTS in settings.sections and set(settings.sections) != set(SECTIONS)
    if wanted and not forecaster.bundle.has_interests:
        raise InvalidInputError(
            f"{forecaster.bundle.directory}: has no interests to measure (--sections interests); "
            "build it with --interests"
        )


def _read_requests(forecaster: Forecaster, study: Study, settings: Settings) -> RequestLog | None:
    if settings.ranking_log is None or RANKING not in settings.sections:
        return None
    log = read_request_log(
        settings.ranking_log, study, forecaster.renderer.name_ids, settings.max_cases
    )
    say(COMMAND, *(f"{settings.ranking_log}: {sentence}" for sentence in log.sentences()))
    return log


def _rank(
    model: LanguageModel,
    study: Study,
    requests: RequestLog | None,
    forecasts: Forecasts,
    tuned: Sequence[TunedBaseline],
    settings: Settings,
) -> RankingFigures:
    def forecast(cases: Sequence[EncodedCase], title: str) -> Float32Array:
        return model.forecast(study, cases, title=title).probabilities

    if requests is None:
        task = simulated_task(study, study.validation, study.test, threads=settings.threads)
        names = [LLM, *forecasts.shares, *(each.name for each in tuned)]
        compared = {name: (forecasts.validation[name], forecasts.test[name]) for name in names}
    else:
        task = logged_task(study, requests, threads=settings.threads)
        compared = forecast_requests(requests, forecast, tuned, forecasts.shares)
    bundle, advertisers = model.forecaster.bundle, model.forecaster.advertisers
    forecast_k = bundle.manifest.forecast_k
    head = PriorHead(bundle.path(HEAD_FILE))
    shipped = head if head.is_fitted else None
    result = run_ranking(
        task, compared, advertisers, real=LLM, forecast_k=forecast_k, shipped=shipped
    )
    stacked = stack_ranker(
        study.training,
        task,
        {name: compared[name] for name in (LLM, POPULARITY, SASREC)},
        advertisers,
        real=LLM,
        forecast_k=forecast_k,
        threads=settings.threads,
    )
    resamples = settings.resamples
    return ranking_section(result, stacked_ranker_tables(stacked, result, resamples), resamples)
