from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adprior_bench.quality.baselines.base import Training, blend, normalised
from adprior_bench.quality.baselines.boosted import Boosted, Examples
from adprior_bench.quality.baselines.category_popularity import CategoryPopularity
from adprior_bench.quality.baselines.neighbours import ItemNeighbours, UserNeighbours
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity, SegmentPopularity
from adprior_bench.quality.baselines.sequential import Sequential
from adprior_bench.quality.baselines.text_embedding import TextEmbedding
from adprior_bench.quality.baselines.tuning import forecast_all
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase, EncodedUser, encoded_cases
from support.encoded_users import ADVERTISERS, CUT, cases_of, invented_users, training_of, user

TREES = {
    "num_leaves": 7,
    "num_iterations": 20,
    "learning_rate": 0.1,
    "min_data_in_leaf": 5,
    "num_threads": 1,
}


def case_of(person: EncodedUser) -> EncodedCase:
    """Return the only case of a user."""
    (case,) = encoded_cases([person], CUT)
    return case


TEST_USER = user("test", [(CUT - 100, 3, 0), (CUT - 50, 4, 0), (CUT - 50, 3, 0), (CUT, 5, 0)])


def test_blend_ignores_empty_distributions() -> None:
    first, second = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert blend(first, second, 0.5).tolist() == [0.75, 0.25]
    assert blend(np.zeros(2), second, 0.5).tolist() == [0.5, 0.5]
    assert blend(first, np.zeros(2), 0.5).tolist() == [1.0, 0.0]
    assert normalised(np.array([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert normalised(np.zeros(2)).tolist() == [0.0, 0.0]


def test_popularity_is_shares_of_events_before_the_cut() -> None:
    people = [user("a", [(CUT - 2, 0, 0), (CUT - 2, 1, 0), (CUT + 1, 2, 0)])]
    people += [user("b", [(CUT - 1, 0, 0), (CUT - 1, -1, 0), (CUT - 1, -7, 0)])]
    shares = Popularity(training_of(people), prior=0.5).shares
    expected = np.full(ADVERTISERS, 0.5)
    expected[[0, 1]] += [2, 1]
    assert shares == pytest.approx(expected / expected.sum())


def test_old_events_fade() -> None:
    people = [user("a", [(CUT - 10, 0, 0), (CUT - 20, 1, 0)][::-1])]
    shares = Popularity(training_of(people), half_life_days=10, prior=0).shares
    assert shares[0] == pytest.approx(2 * shares[1])


def test_segment_popularity_is_smoothed() -> None:
    people = [
        user("a", [(CUT - 1, 0, 0)], {"sex": "f"}),
        user("b", [(CUT - 1, 1, 0)], {"sex": "m"}),
    ]
    segments = SegmentPopularity(training_of(people), key="sex", strength=1.0)
    popularity = Popularity(training_of(people)).shares
    same_segment = case_of(user("c", [(CUT, 5, 0)], {"sex": "f"}))
    expected = popularity.copy()
    expected[0] += 1
    assert segments.probabilities(same_segment) == pytest.approx(expected / 2)
    other_user = case_of(user("d", [(CUT, 5, 0)]))
    assert segments.probabilities(other_user) == pytest.approx(popularity)


def test_own_history_is_shares_of_earlier_days() -> None:
    training = training_of(invented_users(3, name="t"))
    popularity = np.full(ADVERTISERS, 1 / ADVERTISERS)
    plain = OwnHistory(training, popularity, share=0.0).probabilities(case_of(TEST_USER))
    assert plain[[3, 4, 5]] == pytest.approx([2 / 3, 1 / 3, 0])
    faded = OwnHistory(training, popularity, half_life_days=50, share=0.0).own(case_of(TEST_USER))
    assert faded[[3, 4]] == pytest.approx([0.75 / 1.25, 0.5 / 1.25])
    last = OwnHistory(training, popularity, half_life_days=50, last_only=True, share=0.0)
    assert last.own(case_of(TEST_USER))[[3, 4]] == pytest.approx([0.5, 0.5])
    filled = OwnHistory(training, popularity, share=0.3).probabilities(case_of(TEST_USER))
    assert filled[3] == pytest.approx(0.7 * 2 / 3 + 0.3 / ADVERTISERS)
    nothing_yet = case_of(user("new", [(CUT, 1, 0)]))
    assert OwnHistory(training, popularity).probabilities(nothing_yet) == pytest.approx(popularity)


def test_neighbours_are_similar_users() -> None:
    similar = user("similar", [(CUT - 9, 3, 0), (CUT - 9, 4, 0), (CUT - 9, 7, 0)])
    other = user("other", [(CUT - 9, 8, 0), (CUT - 9, 9, 0)])
    training = training_of([similar, other])
    found = UserNeighbours(training, neighbours=1).probabilities(case_of(TEST_USER))
    assert found[[3, 4, 7, 8]] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    items = ItemNeighbours(training, half_life_days=365).probabilities(case_of(TEST_USER))
    assert items[7] > 0
    assert items[[8, 9]].tolist() == [0, 0]
    nothing_yet = case_of(user("new", [(CUT, 1, 0)]))
    assert not UserNeighbours(training, neighbours=1).probabilities(nothing_yet).any()
    assert not ItemNeighbours(training, half_life_days=365).probabilities(nothing_yet).any()


def test_a_user_is_not_their_own_neighbour() -> None:
    people = invented_users(12, name="t")
    training = training_of(people)
    neighbours = UserNeighbours(training, neighbours=11)
    without = UserNeighbours(training_of(people[1:]), neighbours=11)
    (first, *_) = cases_of(people[:1])
    alone = neighbours.probabilities(first)
    # The weights differ a little, since the rarity of an advertiser counts the user too.
    assert np.corrcoef(alone, without.probabilities(first))[0, 1] > 0.99


def recall(baseline: Boosted | Sequential | Popularity, cases: list[EncodedCase], k: int) -> float:
    hits = []
    for case in cases:
        probabilities = baseline.probabilities(case)
        assert probabilities.shape == (ADVERTISERS,)
        assert (probabilities >= 0).all()
        assert probabilities.sum() == pytest.approx(1)
        top = np.argsort(-probabilities)[:k]
        hits.append(np.isin(case.targets, top).mean())
    return float(np.mean(hits))


@pytest.fixture(scope="module")
def new_cases() -> list[EncodedCase]:
    return cases_of(invented_users(20, name="new", seed=5))


def test_learnt_baselines_beat_popularity(new_cases: list[EncodedCase]) -> None:
    training = training_of(invented_users(80, name="t"))
    popular = recall(Popularity(training), new_cases, 3)
    boosted, new_only = (
        Boosted(
            training,
            Examples.draw(training, segment="age", pool=20, negatives=20, new_only=new_only),
            settings=TREES,
        )
        for new_only in (False, True)
    )
    assert recall(boosted, new_cases, 3) > popular + 0.1
    explored = Explore.of(new_cases)
    one, two = (
        explored.recall(forecast_all(each, new_cases, ADVERTISERS), 3)
        for each in (new_only, Popularity(training))
    )
    assert one > two + 0.1
    network = Sequential(training, width=16, epochs=40, learning_rate=5e-3, dropout=0.1)
    assert recall(network, new_cases, 3) > popular + 0.02


def test_the_neural_baseline_is_deterministic(new_cases: list[EncodedCase]) -> None:
    training = training_of(invented_users(10, name="t"))
    one, two = (
        Sequential(training, width=8, epochs=2, length=20).probabilities(new_cases[0])
        for _ in range(2)
    )
    assert one.tolist() == two.tolist()


def shop() -> Training:
    """Return three pet shops, of which the last is a newcomer, and two others."""
    people = [user("a", [(CUT - 2, 0, 0), (CUT - 2, 0, 0), (CUT - 1, 1, 0), (CUT - 1, 3, 1)])]
    return replace(
        training_of(people),
        advertisers=5,
        categories=2,
        names=("Purina Dog Food", "Milk-Bone", "Puppy Treats", "Michelin Tires", "Unknown"),
        advertiser_categories=("PETS", "PETS", "PETS", "CARS", None),
        category_names=("PETS", "CARS"),
    )


def test_popularity_within_the_users_categories_reaches_newcomers() -> None:
    baseline = CategoryPopularity(shop(), half_life_days=50, prior=1.0)
    person = user("b", [(CUT - 100, -1, 1), (CUT - 50, -1, 0), (CUT, 2, 0)])
    found = baseline.probabilities(case_of(person))
    pets, cars = 2 / 3, 1 / 3  # the older event counts half
    expected = [pets * 3 / 6, pets * 2 / 6, pets * 1 / 6, cars, 0]
    assert found == pytest.approx(expected)


def test_text_embeddings_know_what_names_mean() -> None:
    baseline = TextEmbedding(shop(), half_life_days=90, with_category=False)
    found = baseline.probabilities(case_of(user("b", [(CUT - 3, 0, 0), (CUT, 2, 0)])))
    assert found.sum() == pytest.approx(1)
    assert found.argsort()[::-1][:2].tolist() == [0, 2]
    assert found[2] > 2 * found[3]
    baseline = TextEmbedding(shop(), half_life_days=90, with_category=True)
    unnamed = baseline.probabilities(case_of(user("c", [(CUT - 3, -1, 1), (CUT, 2, 0)])))
    assert unnamed.argmax() == 3
