from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_bench.quality.histories import NONE, EncodedCase, Float64Array
from adprior_bench.quality.retrieval.item_vectors import ItemCorpus, ItemVectors
from adprior_bench.quality.retrieval.retriever import (
    Retriever,
    RetrieverSettings,
    _occurrence,
    fit_retriever,
)
from adprior_bench.quality.study import Study
from support.small_shop import NAMES, read_shop

SETTINGS = RetrieverSettings(sizes=(3, 3, 4, 5), advertiser_popularity=0.3, half_life_days=30)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def retriever(study: Study) -> Retriever:
    return fit_retriever(study, replace(SETTINGS, per_advertiser=None))


def brute_force(study: Study, case: EncodedCase, settings: RetrieverSettings) -> Float64Array:
    """The score of every item of the corpus, written out."""
    corpus = ItemCorpus.learn(study)
    vectors = ItemVectors(study, corpus, settings.sizes)
    history = study.histories[case.user.user_id]
    ages = case.day - case.user.days[: case.stop]
    fading = 0.5 ** (ages / settings.half_life_days)
    ends = np.cumsum(vectors.widths)[:-1]
    items = np.split(vectors.of_corpus(corpus), ends, axis=1)
    events = np.split(vectors.of_events(case.user, history)[: case.stop], ends, axis=1)
    scores = np.zeros(len(corpus.ids))
    for weight, item, event in zip(settings.weights, items, events, strict=True):
        mean = fading @ event
        scores += weight * item @ mean / np.linalg.norm(mean)
    scores += settings.popularity * np.log1p(corpus.counts) / np.log1p(corpus.counts).max()
    of_advertiser = np.log1p(np.bincount(corpus.advertisers, corpus.counts))
    shares = of_advertiser / of_advertiser.max()
    scores += settings.advertiser_popularity * shares[corpus.advertisers]
    own = np.zeros(len(corpus.ids))
    places = vectors.places_of(history)[: case.stop]
    np.add.at(own, places[places != NONE], fading[places != NONE])
    scores += settings.repeated * np.log1p(own)
    return scores


def test_lists_are_those_of_brute_force(study: Study, retriever: Retriever) -> None:
    cases = study.validation[:12]
    queries = retriever.queries(study, cases)
    for case, items in zip(cases, retriever.retrieve(queries, 8), strict=True):
        scores = brute_force(study, case, SETTINGS)
        assert [item.score for item in items] == pytest.approx(-np.sort(-scores)[:8], abs=1e-4)
        for item in items:
            assert item.score == pytest.approx(scores[int(item.item_id)], abs=1e-4)
            assert item.advertiser_id == retriever.corpus.advertisers[int(item.item_id)]


def test_the_filter_leaves_the_order_of_the_whole_list(study: Study, retriever: Retriever) -> None:
    [query] = retriever.queries(study, study.validation[:1])
    [everything] = retriever.retrieve([query], 100)
    filtered = retriever.retrieve_filtered(query, np.array([1, 3]), 6)
    assert filtered == [item for item in everything if item.advertiser_id in (1, 3)][:6]
    assert retriever.retrieve_filtered(query, np.array([], dtype=np.int64), 6) == []


def test_a_limit_per_advertiser_passes_items_over(study: Study, retriever: Retriever) -> None:
    queries = retriever.queries(study, study.validation[:5])
    limited = retriever.limited(2)
    found = limited.retrieve(queries, 6)
    for everything, items in zip(retriever.retrieve(queries, 100), found, strict=True):
        kept, seen = [], [0] * len(NAMES)
        for item in everything:
            seen[item.advertiser_id] += 1
            if seen[item.advertiser_id] <= 2:
                kept.append(item)
        assert items == kept[:6]
    # If the limit leaves fewer items, the list is shorter.
    assert [len(items) for items in limited.retrieve(queries, 50)] == [2 * len(NAMES)] * 5
    assert len(limited.retrieve_filtered(queries[0], np.array([0]), 50)) == 2
    assert len(retriever.retrieve(queries, 6)[0]) == 6


def test_the_day_and_what_follows_it_are_not_looked_at(study: Study, retriever: Retriever) -> None:
    case = study.validation[0]
    history = study.histories[case.user.user_id]
    shorter = replace(
        study,
        histories={
            case.user.user_id: replace(
                history, events=history.events[: case.stop], items=history.items[: case.stop]
            )
        },
    )
    user = case.user
    past = replace(
        case,
        user=replace(
            user,
            days=user.days[: case.stop],
            rows=user.rows[: case.stop],
            categories=user.categories[: case.stop],
        ),
    )
    [expected] = retriever.queries(study, [case])
    [found] = retriever.queries(shorter, [past])
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    assert found.bonus == pytest.approx(expected.bonus)


def test_a_user_without_a_past_gets_what_is_popular(study: Study, retriever: Retriever) -> None:
    case = replace(study.validation[0], stop=0)
    [items] = retriever.retrieve(retriever.queries(study, [case]), 5)
    counts = [int(retriever.corpus.counts[int(item.item_id)]) for item in items]
    assert counts[0] == retriever.corpus.counts.max()


@given(st.lists(st.integers(0, 4)))
def test_occurrences_count_what_went_before(values: list[int]) -> None:
    found = _occurrence(np.array(values, dtype=np.int32))
    assert found.tolist() == [values[:place].count(value) for place, value in enumerate(values)]
