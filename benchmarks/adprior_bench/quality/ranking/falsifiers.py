"""False forecasts made from the model's: if a head gains as much with them, it proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase

RANDOM: Final = "random"
SHUFFLED: Final = "shuffled"


def random_forecast(probabilities: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Permute each case's probabilities among the advertisers: [cases, advertisers].

    The forecast is as sharp as before, and has no information.
    """
    return np.random.default_rng(seed).permuted(probabilities, axis=1)


def shuffled_forecast(
    probabilities: npt.NDArray[Any], cases: Sequence[EncodedCase], seed: int
) -> npt.NDArray[Any]:
    """Give each case a forecast for another user: [cases, advertisers].

    Each user gets the forecasts of one other user, some of them twice if the other has fewer cases.
    Information on users in general stays, and information on this user is lost. If there is only
    one user, nothing changes.
    """
    random = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        places.setdefault(case.user.user_id, []).append(place)
    users = random.permutation(sorted(places)).tolist()
    given = np.zeros(len(cases), dtype=np.int64)
    for taker, giver in zip(users, [*users[1:], users[0]], strict=True):
        given[places[taker]] = np.resize(random.permutation(places[giver]), len(places[taker]))
    return probabilities[given]


def falsifiers(
    forecast: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    cases: tuple[Sequence[EncodedCase], Sequence[EncodedCase]],
    seed: int,
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return both false forecasts, for two groups of cases: [cases, advertisers] each."""
    first, second = forecast
    return {
        RANDOM: (random_forecast(first, seed), random_forecast(second, seed + 1)),
        SHUFFLED: (
            shuffled_forecast(first, cases[0], seed),
            shuffled_forecast(second, cases[1], seed + 1),
        ),
    }
