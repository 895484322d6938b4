from __future__ import annotations

import numpy as np
import pytest

from adprior_bench.quality.baselines.affinity import CategoryAffinity
from adprior_bench.quality.baselines.base import Training
from support.encoded_users import CUT, cases_of, user


@pytest.fixture(scope="module")
def affinity() -> CategoryAffinity:
    # Category 0 buys advertiser 0 three times and 1 once; category 1 advertiser 1 twice.
    events = [(1, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0), (3, 1, 1), (3, 1, 1), (4, 2, -1)]
    return CategoryAffinity(
        Training(users=[user("a", events)], cut=CUT, advertisers=3, categories=3)
    )


def test_the_past_s_categories_weigh_their_advertisers(affinity: CategoryAffinity) -> None:
    (case,) = cases_of([user("b", [(10, -1, 0), (11, -1, 1), (12, -2, 1), (CUT, 0, 0)])])
    expected = np.array([0.75, 0.25, 0]) / 3 + np.array([0, 1, 0]) * 2 / 3
    np.testing.assert_allclose(affinity.probabilities(case), expected)


def test_recent_days_leave_out_what_is_older(affinity: CategoryAffinity) -> None:
    (case,) = cases_of([user("b", [(CUT - 31, -1, 0), (CUT - 30, -1, 1), (CUT, 0, 0)])])
    np.testing.assert_allclose(affinity.probabilities(case, recent_days=30), [0, 1, 0])


def test_categories_without_advertisers_and_users_without_a_past_give_less(
    affinity: CategoryAffinity,
) -> None:
    (case,) = cases_of([user("b", [(10, -1, 2), (11, -1, 1), (CUT, 0, 0)])])
    np.testing.assert_allclose(affinity.probabilities(case), [0, 0.5, 0])
    (new,) = cases_of([user("b", [(CUT, 0, 0)])])
    np.testing.assert_array_equal(affinity.probabilities(new), np.zeros(3))
