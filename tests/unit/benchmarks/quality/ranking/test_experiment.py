from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score

from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.ranking.base_ranker import rank_rows
from adprior_bench.quality.ranking.experiment import (
    BASE,
    SHIPPED,
    RankingResult,
    run_ranking,
)
from adprior_bench.quality.ranking.falsifiers import RANDOM, SHUFFLED
from adprior_bench.quality.ranking.head_choice import (
    REFERENCE,
    apply_head,
)
from adprior_bench.quality.ranking.head_features import head_features
from adprior_bench.quality.ranking.ranking_task import RankingTask, simulated_task
from adprior_bench.quality.stacking.stacked_ranker import WITHOUT, stack_ranker
from adprior_bench.quality.stacking.stacked_ranker_tables import stacked_ranker_tables
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.log_summary import LogSummary
from adprior_build.data.split import Split
from adprior_build.head.onnx_head import HeadMetadata, write_head
from adprior_build.head.variants import Head
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.head import PriorHead
from support.encoded_users import ADVERTISERS, CATEGORIES, cases_of, invented_users, training_of

Forecasts = Mapping[str, tuple[Any, Any]]
TRAINING_USERS = invented_users(40, name="training")
HEAD_CASES = cases_of(invented_users(50, name="head", seed=1))[::2]
TEST_CASES = cases_of(invented_users(60, name="test", seed=2))[::2]


@pytest.fixture(scope="module")
def study() -> Study:
    names = tuple(f"brand {row}" for row in range(ADVERTISERS))
    ids = tuple(range(100, 100 + ADVERTISERS))
    return Study(
        splits=Splits(cut=date(1972, 9, 27), test=Split(), validation=Split()),
        catalogue=Catalogue(
            ids=ids,
            names=names,
            aliases=((),) * len(ids),
            table=pa.table({"name": names}),
            source=Path("none"),
            source_rows=ids,
        ),
        categories=[str(row) for row in range(CATEGORIES)],
        training=training_of(TRAINING_USERS),
        validation=HEAD_CASES,
        test=TEST_CASES,
        later=cases_of(TRAINING_USERS)[::2],
        learnt=[],
        histories={},
        log=LogSummary(events=0, users=0, with_profile=0),
    )


@pytest.fixture(scope="module")
def advertisers(study: Study) -> Advertisers:
    rows = study.training.events()[1]
    counts = np.bincount(rows, minlength=ADVERTISERS).tolist()
    ids, names = study.catalogue.ids, study.catalogue.names
    return Advertisers.build(ids, names, [1] * ADVERTISERS, counts)


def knowing(cases: list[EncodedCase], seed: int) -> Any:
    """Return forecasts that know a part of each day, without using histories."""
    random = np.random.default_rng(seed)
    found = random.dirichlet(np.ones(ADVERTISERS), len(cases))
    for row, case in enumerate(cases):
        found[row, case.targets] += random.uniform(0, 0.2, len(case.targets))
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def forecasts() -> Forecasts:
    even = np.full(ADVERTISERS, 1 / ADVERTISERS)
    return {
        "even": tuple(np.tile(even, (len(cases), 1)) for cases in (HEAD_CASES, TEST_CASES)),
        "knowing": (knowing(HEAD_CASES, 1), knowing(TEST_CASES, 2)),
    }


@pytest.fixture(scope="module")
def task(study: Study) -> RankingTask:
    return simulated_task(study, HEAD_CASES, TEST_CASES, threads=1)


@pytest.fixture(scope="module")
def result(task: RankingTask, advertisers: Advertisers, forecasts: Forecasts) -> RankingResult:
    return measure(task, advertisers, forecasts)


def measure(
    task: RankingTask,
    advertisers: Advertisers,
    forecasts: Forecasts,
    shipped: PriorHead | None = None,
) -> RankingResult:
    return run_ranking(task, forecasts, advertisers, real="knowing", forecast_k=5, shipped=shipped)


def gain(result: RankingResult, name: str) -> float:
    found = average_precision_score(result.labels, result.logits[name])
    reference = average_precision_score(result.labels, result.logits[REFERENCE])
    return float(found / reference - 1)


def test_every_ranker_has_a_logit_for_every_row(result: RankingResult) -> None:
    assert set(result.logits) == {BASE, REFERENCE, "even", "knowing", RANDOM, SHUFFLED}
    rows = len(result.labels)
    assert all(logits.shape == (rows,) for logits in result.logits.values())
    assert all(np.isfinite(logits).all() for logits in result.logits.values())
    owners = [TEST_CASES[case].user.user_id for case in result.cases]
    assert result.users.tolist() == owners
    positives = np.bincount(result.cases, result.labels)
    assert positives.tolist() == [len(case.targets) for case in TEST_CASES]


def test_the_reference_is_the_base_ranker_recalibrated(result: RankingResult) -> None:
    slope, shift = result.recalibration
    assert slope > 0
    np.testing.assert_allclose(result.logits[REFERENCE], slope * result.logits[BASE] + shift)


def test_a_true_forecast_gains_and_falsifiers_gain_little(
    result: RankingResult,
) -> None:
    assert gain(result, "knowing") > 0.1
    for name in (RANDOM, SHUFFLED, "even"):
        assert abs(gain(result, name)) < 0.2 * gain(result, "knowing")


def test_a_true_forecast_adds_to_the_stacked_ranker_and_falsifiers_do_not(
    study: Study,
    task: RankingTask,
    advertisers: Advertisers,
    forecasts: Forecasts,
    result: RankingResult,
) -> None:
    stacked = stack_ranker(
        study.training, task, forecasts, advertisers, real="knowing", forecast_k=5, threads=1
    )
    assert list(stacked) == [WITHOUT, "even", "knowing", RANDOM, SHUFFLED]
    found = stacked_ranker_tables(stacked, result, resamples=20)
    control = average_precision_score(result.labels, stacked[WITHOUT].logits)
    for name, change in found.gains.items():
        pr_auc = average_precision_score(result.labels, stacked[name].logits)
        assert change.value == pytest.approx(pr_auc / control - 1)
    assert found.gains["knowing"].low > 0.1
    for name in ("even", RANDOM, SHUFFLED):
        assert abs(found.gains[name].value) < 0.2 * found.gains["knowing"].value
    assert control > 0.95 * average_precision_score(result.labels, result.logits[REFERENCE])


def test_the_shipped_head_is_measured_as_it_is(
    task: RankingTask,
    advertisers: Advertisers,
    forecasts: Forecasts,
    result: RankingResult,
    tmp_path: Path,
) -> None:
    head = Head(
        weights=np.array([0.4, -0.2, 0, 0, 0, 0]),
        bias=0.1,
        mean=np.zeros(6),
        scale=np.ones(6),
        clamp=1.5,
    )
    metadata = HeadMetadata(
        forecast_k=5, engine="onnx", catalogue_fingerprint="c0ffee", fitted_rows=1
    )
    write_head(tmp_path / "head.onnx", head, metadata)
    found = measure(task, advertisers, forecasts, PriorHead(tmp_path / "head.onnx"))
    features = head_features(forecasts["knowing"][1], task.test.impressions, advertisers, 5)
    expected = apply_head(head, features, result.logits[REFERENCE])
    np.testing.assert_allclose(found.logits[SHIPPED], expected, atol=1e-5)
    assert np.ptp(found.logits[SHIPPED] - result.logits[REFERENCE]) > 0.1
    assert set(found.logits) == {*result.logits, SHIPPED}


def test_the_simulated_log_does_not_depend_on_the_groups(
    study: Study, result: RankingResult
) -> None:
    _, (rows,) = rank_rows(study, [TEST_CASES], threads=1)
    assert rows.logits.tobytes() == result.logits[BASE].tobytes()
    assert sum(result.task.importance.values()) == pytest.approx(1)


def test_groups_with_the_same_users_are_refused(
    task: RankingTask, advertisers: Advertisers, forecasts: Forecasts
) -> None:
    with pytest.raises(InvalidInputError, match="60 users are in both groups"):
        run_ranking(replace(task, fitted=task.test), forecasts, advertisers, real="knowing")


def test_a_reserved_name_is_refused(
    task: RankingTask, advertisers: Advertisers, forecasts: Forecasts
) -> None:
    taken = {**forecasts, SHUFFLED: forecasts["even"]}
    with pytest.raises(InvalidInputError, match="forecast shuffled: the name is taken"):
        measure(task, advertisers, taken)
