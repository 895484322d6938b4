from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.intervals import UserBootstrap
from adprior_bench.quality.retrieval.places import Filled, choose_places
from adprior_bench.quality.retrieval.quotas import (
    MEASURES,
    BlendSettings,
    QuotaResult,
    measure_quotas,
    wanted_items,
)
from adprior_bench.quality.retrieval.retrieval_tables import retrieval_section
from adprior_bench.quality.retrieval.retriever import Retriever, RetrieverSettings, fit_retriever
from adprior_bench.quality.retrieval.retriever_tuning import tune_retriever
from adprior_bench.quality.study import Study
from adprior_client import advertiser_concentration, blend_retrieved
from adprior_runtime.errors import InvalidInputError
from support.small_shop import NAMES, read_shop

BLIND = RetrieverSettings(sizes=(3, 3, 4, 5), weights=(0, 0, 0, 0), repeated=0)
"""Gives the same popular items for all users."""
SETTINGS = BlendSettings(budgets=(2, 4), quotas=(0.0, 0.25, 0.5), advertisers=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def retriever(study: Study) -> Retriever:
    settings = RetrieverSettings(sizes=(3, 3, 4, 5), per_advertiser=None)
    return fit_retriever(study, settings)


@pytest.fixture(scope="module")
def foresight(study: Study) -> Float64Array:
    """Forecasts that know the day."""
    table = np.zeros((len(study.validation), len(NAMES)))
    for row, case in zip(table, study.validation, strict=True):
        row[case.targets] = 1 / len(case.targets)
    return table


def test_the_wanted_items_are_those_of_the_day(study: Study, retriever: Retriever) -> None:
    first, second = study.validation[:2]  # a user's two days
    assert first.user is second.user
    history = study.histories[first.user.user_id]
    wanted = wanted_items(retriever, study, first)
    assert wanted.places == {retriever.places[history.items[first.stop]]}
    assert wanted.advertisers == set(first.targets.tolist())
    assert (wanted.items, wanted.named) == (1, 1)
    outside = wanted_items(retriever, study, second)
    assert (outside.places, outside.items) == (frozenset(), 1)


def test_figures_are_those_of_the_clients_blend(
    study: Study, retriever: Retriever, foresight: Float64Array
) -> None:
    found = measure_quotas(retriever, study, study.validation, foresight, SETTINGS)
    assert found.items == len(study.validation)
    assert found.items_outside == len(study.validation) // 2
    queries = retriever.queries(study, study.validation)
    for place, case in enumerate(study.validation[:10]):
        blended = blend_retrieved(
            retriever.retrieve([queries[place]], 4)[0],
            retriever.retrieve_filtered(queries[place], case.targets, 50),
            case.targets,
            budget=4,
            quota=0.5,
            per_advertiser=1,
        )
        advertisers = [item.advertiser_id for item in blended]
        wanted = wanted_items(retriever, study, case)
        values = {measure: found.values[measure][1, 2, place] for measure in MEASURES}
        spread = advertiser_concentration(advertisers)
        assert values == {
            "items": len(wanted.places & {int(item.item_id) for item in blended}),
            "advertisers": float(int(case.targets[0]) in advertisers),
            "herfindahl": spread.herfindahl,
            "top_share": spread.top_share,
        }


def test_foresight_finds_every_advertiser_and_no_forecast_changes_nothing(
    study: Study, retriever: Retriever, foresight: Float64Array
) -> None:
    found = measure_quotas(retriever, study, study.validation, foresight, SETTINGS)
    assert [found.mean(budget, 0.5) for budget in (2, 4)] == [1.0, 1.0]
    none = measure_quotas(retriever, study, study.validation, 0 * foresight, SETTINGS)
    for measure in MEASURES:
        np.testing.assert_array_equal(none.values[measure][:, 2], found.values[measure][:, 0])
    assert none.best_quota(4) == 0.0


def test_without_a_forecast_the_slots_go_to_advertisers_that_the_list_lacks(
    study: Study, retriever: Retriever
) -> None:
    found = measure_quotas(retriever, study, study.validation, None, SETTINGS)
    queries = retriever.queries(study, study.validation)
    everything = len(retriever.corpus.ids)
    added = 0
    for place, query in enumerate(queries):
        items = retriever.retrieve([query], everything)[0]
        own = items[:2]
        for item in items[2:]:
            if len(own) < 4 and item.advertiser_id not in {each.advertiser_id for each in own}:
                own.append(item)
                added += 1
        own += [item for item in items if item not in own][: 4 - len(own)]
        wanted = wanted_items(retriever, study, study.validation[place])
        found_advertisers = wanted.advertisers & {item.advertiser_id for item in own}
        assert found.values["advertisers"][1, 2, place] == len(found_advertisers) / wanted.named
    assert added


def test_a_forecast_is_compared_with_the_control_and_with_rivals(
    study: Study, foresight: Float64Array
) -> None:
    retriever = fit_retriever(study, BLIND)

    def filled(title: str, probabilities: Float64Array | None) -> Filled:
        measured = measure_quotas(retriever, study, study.validation, probabilities, SETTINGS)
        return Filled(title=title, validation=measured, test=measured)

    owners = np.array([case.user.user_id for case in study.validation])
    bootstrap = UserBootstrap(owners, resamples=50)
    forecast, control, rival = (
        filled(title, matrix)
        for title, matrix in (("foresight", foresight), ("control", None), ("rival", foresight))
    )
    tuning = tune_retriever(study, trials=1)
    found = retrieval_section([forecast], [rival], control, tuning, bootstrap)
    for budget, places in found.places.items():
        quotas = [each.validation.best_quota(budget) for each in (forecast, control)]
        gain, theirs = (
            each.test.gain(budget, quota).mean()
            for each, quota in zip((forecast, control), quotas, strict=True)
        )
        assert places.gain.value == gain
        assert places.over_control.value == pytest.approx(gain - theirs)
        assert (places.ours, places.rival) == ("foresight", "rival")
        assert (places.on_validation, places.on_test.value) == (0, 0)
        assert not places.is_chosen
    assert found.places[2].over_control.low > 0
    content: Any = found.section["content"]
    (table,) = (each for each in content if each["title"].startswith("Reserved places"))
    assert [row[1] for row in table["rows"]] == ["foresight", "control", "rival"] * 2


def test_validation_chooses_the_best_filling_of_each_side(
    study: Study, foresight: Float64Array
) -> None:
    """The test judges it, even if another filling is better there."""
    retriever = fit_retriever(study, BLIND)
    good, none = (
        measure_quotas(retriever, study, study.validation, matrix, SETTINGS)
        for matrix in (foresight, np.zeros_like(foresight))
    )
    ours = [
        Filled(title="a", validation=none, test=good),
        Filled(title="b", validation=good, test=good),
    ]
    rivals = [Filled(title="c", validation=none, test=none)]
    owners = np.array([case.user.user_id for case in study.validation])
    bootstrap = UserBootstrap(owners, resamples=50)
    places = choose_places(ours, rivals, rivals[0], bootstrap)[2]
    assert (places.ours, places.rival) == ("b", "c")
    assert places.is_chosen
    assert places.is_confirmed
    overrated = [Filled(title="a", validation=good, test=none)]
    places = choose_places(overrated, rivals, rivals[0], bootstrap)[2]
    assert (places.is_chosen, places.is_confirmed) == (True, False)


def test_days_without_an_item_have_no_share_of_items(
    study: Study, retriever: Retriever, foresight: Float64Array
) -> None:
    histories = {
        name: replace(user, items=[""] * len(user.items)) for name, user in study.histories.items()
    }
    nameless = replace(study, histories=histories)
    found = measure_quotas(retriever, nameless, study.validation, foresight, SETTINGS)
    assert np.isnan(found.values["items"]).all()
    assert np.isfinite(found.values["advertisers"]).all()
    assert np.isnan(found.mean(2, 0.0, "items"))


def test_the_best_quota_is_the_smallest_of_equal_ones() -> None:
    values = np.array([[[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [0.0, 0.5], [0.2, 0.2]]])
    found = QuotaResult(
        settings=SETTINGS,
        values=dict.fromkeys(MEASURES, values),
        items=4,
        items_outside=1,
    )
    assert found.best_quota(2) == 0.25
    assert found.best_quota(4, "items") == 0.0
    assert found.gain(2, 0.25).tolist() == [1.0, 0.0]
    assert found.gain(4, 0.5).tolist() == pytest.approx([-0.3, -0.3])


def test_forecasts_of_another_shape_are_refused(
    study: Study, retriever: Retriever, foresight: Float64Array
) -> None:
    with pytest.raises(InvalidInputError, match=r"forecasts of shape \(1, 4\), expected"):
        measure_quotas(retriever, study, study.validation, foresight[:1], SETTINGS)
