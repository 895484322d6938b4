"""Users that nobody is: a catalogue's advertisers at random, for want of an event log.

Each prefers a few advertisers, drawn by popularity, and acts on them over half a year. They need no
file beside the bundle, so any installation has them. They load a server with prompts of all
lengths; what real users cost, only real users tell.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from adprior_build.data.event_log import UserHistory
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.prompt.context import Event

_MEAN_EVENTS: Final = 15
_MOST_PREFERRED: Final = 8
_DAYS: Final = 180
_FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


def make_up_users(advertisers: Advertisers, *, count: int, seed: int) -> list[UserHistory]:
    """Return so many users, the same for the same seed; some have done nothing yet.

    Args:
        advertisers: The catalogue.
        count: How many.
        seed: Of all draws.
    """
    random = np.random.default_rng(seed)
    return [_make_up(advertisers, f"user-{number}", random) for number in range(count)]


def _make_up(advertisers: Advertisers, user_id: str, random: np.random.Generator) -> UserHistory:
    events = int(random.geometric(1 / (_MEAN_EVENTS + 1))) - 1
    # Gumbel's trick: the largest of log-weight plus noise are a draw without replacement.
    keys = advertisers.log_popularity + random.gumbel(size=len(advertisers.ids))
    preferred = np.argsort(-keys)[: int(random.integers(1, _MOST_PREFERRED + 1))]
    chosen = random.choice(preferred, size=events)
    days = np.sort(random.integers(_DAYS, size=events))
    return UserHistory(
        user_id=user_id,
        profile={},
        events=[
            Event(
                time=_FIRST_DAY + timedelta(days=int(day)),
                action="purchase",
                advertiser=advertisers.name(int(row)).decode(),
            )
            for day, row in zip(days, chosen, strict=True)
        ],
    )
