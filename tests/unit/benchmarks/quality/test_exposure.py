from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_bench.quality.exposure import measure_exposure
from adprior_bench.quality.intervals import UserBootstrap, estimate
from support.quality_cases import weighted_draws


def test_figures_are_those_worked_out_by_hand() -> None:
    lists = np.array([[0, 1], [0, 2], [0, 3]])
    found = measure_exposure(lists, 8, UserBootstrap(np.arange(3)))
    assert found["coverage"][0] == pytest.approx(4 / 8)
    assert found["hhi"][0] == pytest.approx((3 / 6) ** 2 + 3 * (1 / 6) ** 2)
    assert found["top_share"][0] == 1.0


def test_only_the_first_ten_places_count() -> None:
    lists = np.arange(20)[np.newaxis]
    found = measure_exposure(lists, 40, UserBootstrap(np.zeros(1)))
    assert found["coverage"][0] == pytest.approx(10 / 40)
    assert found["hhi"][0] == pytest.approx(1 / 10)


def test_every_resample_is_what_its_users_lists_give() -> None:
    random = np.random.default_rng(1)
    owners = np.repeat(np.arange(6), 4)
    lists = np.array([random.choice(30, 10, replace=False) for _ in owners])
    bootstrap = UserBootstrap(owners, resamples=15)
    found = measure_exposure(lists, 30, bootstrap)

    def places(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = (
            np.bincount(lists.ravel(), np.repeat(weights, 10), 30) / weights.sum() / 10
        )
        return found

    for name, measure in (
        ("coverage", lambda weights: float((places(weights) > 0).mean())),
        ("hhi", lambda weights: float((places(weights) ** 2).sum())),
        ("top_share", lambda weights: float(np.sort(places(weights))[-10:].sum())),
    ):
        np.testing.assert_allclose(found[name], weighted_draws(bootstrap, measure))


def test_resamples_see_fewer_users_so_intervals_are_centred() -> None:
    random = np.random.default_rng(1)
    lists = random.integers(0, 2000, (50, 10))
    coverage = measure_exposure(lists, 2000, UserBootstrap(np.arange(50)))["coverage"]
    assert estimate(coverage).high < coverage[0]
    centred = estimate(coverage, centred=True)
    assert centred.low < coverage[0] < centred.high
