from __future__ import annotations

import numpy as np

from adprior_bench.quality.ranking.falsifiers import random_forecast, shuffled_forecast
from support.encoded_users import CUT, cases_of, user


def test_random_forecasts_keep_each_case_s_probabilities() -> None:
    forecasts = np.random.default_rng(0).dirichlet(np.ones(50), 20)
    dealt = random_forecast(forecasts, 1)
    np.testing.assert_array_equal(np.sort(dealt, axis=1), np.sort(forecasts, axis=1))
    assert not (dealt == forecasts).all(axis=1).any()
    assert (dealt == random_forecast(forecasts, 1)).all()
    assert (dealt[0].argsort() != dealt[1].argsort()).any()


def test_shuffled_forecasts_are_another_user_s() -> None:
    days = {"a": 1, "b": 4, "c": 2, "d": 3}
    cases = cases_of(
        [user(name, [(CUT + day, 0, 0) for day in range(count)]) for name, count in days.items()]
    )
    owners = np.array([case.user.user_id for case in cases])
    made_for = np.arange(len(cases))[:, None]
    given = shuffled_forecast(made_for, cases, 3)[:, 0]
    givers = {taker: set(owners[given[owners == taker]]) for taker in days}
    assert all(len(found) == 1 and taker not in found for taker, found in givers.items())
    assert sorted(name for found in givers.values() for name in found) == sorted(days)
    for taker, (giver,) in givers.items():
        assert len(set(given[owners == taker])) == min(days[taker], days[giver])
    assert (given == shuffled_forecast(made_for, cases, 3)[:, 0]).all()
