"""Small users, cases and training sets for tests of the quality benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, EncodedUser, before, encoded_cases

CUT = 1000
ADVERTISERS = 30
CATEGORIES = 5


def user(
    user_id: str,
    events: Sequence[tuple[int, int, int]],
    profile: Mapping[str, str] | None = None,
) -> EncodedUser:
    """Return a user of (day, advertiser row, category) events, oldest first."""
    days, rows, categories = np.array(events, dtype=np.int32).reshape(-1, 3).T
    return EncodedUser(
        user_id=user_id, profile=profile or {}, days=days, rows=rows, categories=categories
    )


def invented_users(count: int, *, name: str, events: int = 40, seed: int = 0) -> list[EncodedUser]:
    """Return users who each have favourite advertisers, on days around `CUT`.

    An advertiser's category is its row modulo `CATEGORIES`; each user prefers two categories, and
    four of their advertisers by far.
    """
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        liked = random.choice(CATEGORIES, 2, replace=False)
        shares = np.where(np.isin(np.arange(ADVERTISERS) % CATEGORIES, liked), 4.0, 0.3)
        shares /= 1 + np.arange(ADVERTISERS) / 8
        favourites = random.choice(ADVERTISERS, 4, replace=False, p=shares / shares.sum())
        shares[favourites] += shares.sum() / 3
        rows = random.choice(ADVERTISERS, events, p=shares / shares.sum())
        days = np.sort(random.integers(CUT - 400, CUT + 200, events))
        chosen = list(zip(days.tolist(), rows.tolist(), (rows % CATEGORIES).tolist(), strict=True))
        found.append(user(f"{name}-{index}", chosen, {"age": f"{index % 3}0s"}))
    return found


def training_of(users: Sequence[EncodedUser]) -> Training:
    """Return the training set of users: their events before `CUT`."""
    return Training(
        users=[before(item, CUT) for item in users],
        cut=CUT,
        advertisers=ADVERTISERS,
        categories=CATEGORIES,
    )


def cases_of(users: Sequence[EncodedUser]) -> list[EncodedCase]:
    """Return the users' cases from `CUT` on."""
    return list(encoded_cases(users, CUT))
