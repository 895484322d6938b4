from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from adprior_bench.quality.baselines.base import normalised
from adprior_bench.quality.baselines.boosted import FEATURES, Signals
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity
from adprior_bench.quality.baselines.tuning import forecast_all
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.metrics import Float32Array, mean_recall
from adprior_bench.quality.stacking.candidates import StackCandidates
from adprior_bench.quality.stacking.second_stage import SETTINGS
from adprior_bench.quality.stacking.stack import CONTROL, Stack, fit_stacks
from adprior_runtime.catalogue.advertisers import Advertisers
from support.encoded_users import ADVERTISERS, cases_of, invented_users, training_of

POOL = 4
TRAINING = training_of(invented_users(40, name="training"))
VALIDATION = cases_of(invented_users(40, name="validation", seed=1))
TEST = cases_of(invented_users(40, name="test", seed=2))


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates leave most of the small catalogue out."""
    monkeypatch.setattr("adprior_bench.quality.stacking.candidates.POOL", POOL)


def ranker(cases: Sequence[EncodedCase]) -> Float32Array:
    return forecast_all(OwnHistory(TRAINING, Popularity(TRAINING).shares), cases, ADVERTISERS)


def forecast(cases: Sequence[EncodedCase], knowledge: float) -> Float32Array:
    """Return forecasts that know a part of each day, without using histories."""
    random = np.random.default_rng(len(cases))
    found = random.dirichlet(np.ones(ADVERTISERS), len(cases))
    for row, case in enumerate(cases):
        found[row, case.targets] += knowledge * random.random(len(case.targets))
    return np.stack([normalised(row) for row in found]).astype(np.float32)


def fit(
    test: Sequence[EncodedCase], knowledge: Mapping[str, float], interests: float | None = None
) -> dict[str, Stack]:
    ids = range(100, 100 + ADVERTISERS)
    names = [f"brand {row}" for row in range(ADVERTISERS)]
    counts = np.bincount(TRAINING.events()[1], minlength=ADVERTISERS).tolist()
    known = VALIDATION if test is VALIDATION else TEST
    pairs = {
        name: (forecast(VALIDATION, share), forecast(known, share))
        for name, share in knowledge.items()
    }
    return fit_stacks(
        Signals(TRAINING, segment=None),
        (VALIDATION, test),
        (ranker(VALIDATION), ranker(test)),
        pairs,
        Advertisers.build(ids, names, [1] * ADVERTISERS, counts),
        forecast_k=5,
        threads=1,
        interests=None
        if interests is None
        else (np.log(forecast(VALIDATION, interests)), np.log(forecast(known, interests))),
    )


def test_a_true_forecast_adds_to_the_ranker_and_an_empty_one_does_not() -> None:
    stacks = fit(TEST, {"knowing": 0.3, "empty": 0.0})
    assert list(stacks) == [CONTROL, "stack_with_knowing", "stack_with_empty"]
    for cases, kind in ((VALIDATION, "validation"), (TEST, "test")):
        found = {
            name: mean_recall(getattr(stack.everything, kind).probabilities(), cases, 3)
            for name, stack in stacks.items()
        }
        alone = mean_recall(ranker(cases), cases, 3)
        assert found["stack_with_knowing"] > found[CONTROL] + 0.1
        assert found[CONTROL] > alone - 0.02
        assert abs(found["stack_with_empty"] - found[CONTROL]) < 0.03
    for stack in stacks.values():
        for choice in (stack.everything, stack.new):
            assert choice.recalls[SETTINGS.index(choice.setting)] == max(choice.recalls)
            assert (choice.test.probabilities().sum(axis=1) <= 1 + 1e-5).all()
        recall = mean_recall(stack.everything.validation.probabilities(), VALIDATION)
        assert recall == max(stack.everything.recalls)
        explored = Explore.of(VALIDATION)
        new = explored.forecasts(stack.new.validation.probabilities())
        assert mean_recall(new, explored.cases) == max(stack.new.recalls)


def test_test_cases_change_nothing_that_was_learnt() -> None:
    other = [replace(case, targets=case.targets[:0]) for case in TEST]
    one, two = (fit(test, {"knowing": 0.3}) for test in (TEST, other))
    for name, stack in one.items():
        mine, theirs = stack.everything, two[name].everything
        assert mine.recalls == theirs.recalls
        np.testing.assert_array_equal(mine.test.logits, theirs.test.logits)


def test_validation_cases_alone_are_judged_by_cross_fitting() -> None:
    for stack in fit(VALIDATION, {"knowing": 0.3}).values():
        assert stack.everything.test is stack.everything.validation


def test_a_forecasts_first_are_candidates_of_its_stack_alone() -> None:
    cases = VALIDATION[:20]
    signals = Signals(TRAINING, segment=None)
    unlikely = np.tile(np.linspace(0, 1, ADVERTISERS, dtype=np.float32) ** 8, (len(cases), 1))
    matrix = unlikely / unlikely.sum(axis=1, keepdims=True)
    found = StackCandidates.of(cases, signals, ranker(cases), {"unlikely": matrix})
    control = StackCandidates.of(cases, signals, ranker(cases), {})
    np.testing.assert_array_equal(found.learnable[found.shared], control.learnable)
    names = ["popularity", "user_neighbours", "item_neighbours", "category_affinity"]
    columns = [FEATURES.index(name) for name in names]
    for place, part in found.impressions.requests():
        features, rows = signals.of(cases[place]), found.impressions.rows[part]
        shared = set(rows[found.shared[part]].tolist())
        assert set(np.flatnonzero(features[:, 0])) <= shared
        for column in columns:
            least = np.sort(features[:, column])[-POOL]
            assert set(np.flatnonzero(features[:, column] > least)) <= shared
        pool = set(rows[found.pools["unlikely"][part]].tolist())
        assert pool == shared | set(range(ADVERTISERS - POOL, ADVERTISERS))
        lowest = found.logits[part][found.shared[part]].min()
        assert (found.logits[part] >= lowest).all()


@pytest.mark.parametrize("knowledge", [0.0, 0.3])
def test_interests_add_as_much_as_they_know(knowledge: float) -> None:
    stacks = fit(TEST, {"llm": 0.0}, knowledge)
    recalls = {
        name: mean_recall(stack.everything.test.probabilities(), TEST, 3)
        for name, stack in stacks.items()
    }
    assert list(recalls)[-1] == "stack_with_llm_and_interests"
    gain = recalls["stack_with_llm_and_interests"] - recalls["stack_with_llm"]
    assert gain > 0.1 if knowledge else abs(gain) < 0.03
    plain = fit(TEST, {"llm": 0.0})["stack_with_llm"].everything.test
    np.testing.assert_array_equal(stacks["stack_with_llm"].everything.test.logits, plain.logits)
