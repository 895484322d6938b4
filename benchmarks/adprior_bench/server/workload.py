"""The requests of the benchmark: many users on many days, each with candidates.

Users come from an event log, or are made up. A request is a user at the start of a random day, with
the history before it. So prompts have all lengths, as in production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_bench.data.user_contexts import context_json
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_client import ClientConfig, ClientError, Forecast, RetrievalClient
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.text.normalisation import normalise_text

CANDIDATES: Final = 50
MAX_EVENTS: Final = 500
"""Only the last 500 events of a longer history are sent: a prompt holds fewer."""

_OWN_SHARE: Final = 0.4
_SEED: Final = 20_220_701
_MADE_UP_USERS: Final = 64
_MEAN_EVENTS: Final = 15
_MAX_PREFERRED: Final = 8
_DAYS: Final = 180
_FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRequest:
    """One user, for every scenario.

    Attributes:
        context: The user context, JSON.
        candidate_ids: Advertisers to rank.
        base_logits: A logit of each candidate.
        forecast: The user's stored forecast, from `add_forecasts`.
    """

    context: str
    candidate_ids: list[int]
    base_logits: list[float]
    forecast: Forecast | None = None


def read_requests(
    bundle: Bundle, count: int, events: Path | None, profiles: Path | None, columns: Path | None
) -> list[UserRequest]:
    """Draw requests from the users of an event log, or from made-up users without one.

    Raises:
        InvalidInputError: A file is wrong, or has no users.
    """
    advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
    if events is None or columns is None:
        users = _make_up_users(advertisers)
    else:
        users = read_users(events, profiles, ColumnMap.load(columns))
        if not users:
            raise InvalidInputError(f"{events}: no user with an event")
        names = [advertisers.name(row).decode() for row in range(len(advertisers.ids))]
        users = name_advertisers(users, advertisers.ids.tolist(), names)
    return draw_requests(users, advertisers, count=count, seed=_SEED)


def add_forecasts(
    requests: Sequence[UserRequest], connection: ClientConfig, bundle_id: str
) -> list[UserRequest]:
    """Return the requests with the server's own forecasts, which also warms the server up.

    Raises:
        InvalidInputError: The server serves another bundle.
        EnvironmentProblemError: The server does not answer.
    """
    config = replace(connection, deadline_s=_DEADLINE_S, fail_open=False)
    (address,) = connection.urls
    found = []
    with RetrievalClient(config) as client:
        for request in tqdm(requests, unit="user", desc="forecasts", leave=False, disable=None):
            try:
                forecast = client.forecast(request.context.encode())
            except ClientError as error:
                raise EnvironmentProblemError(f"{address}: no forecast: {error}") from error
            if forecast.bundle_id != bundle_id:
                raise InvalidInputError(
                    f"{address} serves bundle {forecast.bundle_id}, --bundle is {bundle_id}"
                )
            found.append(replace(request, forecast=forecast))
    return found


def draw_requests(
    users: Sequence[UserHistory], advertisers: Advertisers, *, count: int, seed: int
) -> list[UserRequest]:
    """Draw requests: a user, then one of the user's days or the day after the last.

    Up to two fifths of the candidates are advertisers of the user's own history, latest first; the
    others are drawn by popularity. Base logits are drawn around -3.
    """
    random = np.random.default_rng(seed)
    names = (advertisers.name(row).decode() for row in range(len(advertisers.ids)))
    rows = {normalise_text(name): row for row, name in enumerate(names)}
    requests = []
    for _ in range(count):
        user = users[random.integers(len(users))]
        days = sorted({event.time.date() for event in user.events}) or [datetime.now(UTC).date()]
        days.append(days[-1] + timedelta(days=1))
        as_of = datetime.combine(days[random.integers(len(days))], time(), tzinfo=UTC)
        past = [event for event in user.events if event.time < as_of][-MAX_EVENTS:]
        own = (rows.get(normalise_text(event.advertiser or "")) for event in reversed(past))
        chosen = _candidates([row for row in own if row is not None], advertisers, random)
        requests.append(
            UserRequest(
                context=context_json(user, past, as_of).decode(),
                candidate_ids=advertisers.ids[chosen].tolist(),
                base_logits=random.normal(-3, 1, len(chosen)).round(4).tolist(),
            )
        )
    return requests


def _candidates(
    own: Sequence[int], advertisers: Advertisers, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return different rows in random order: the latest of ``own``, then by popularity."""
    count = min(CANDIDATES, len(advertisers.ids))
    known = list(dict.fromkeys(own))[: int(_OWN_SHARE * count)]
    keys = _popularity_keys(advertisers, random)
    keys[known] = np.inf
    chosen = np.argpartition(-keys, count - 1)[:count]
    return random.permutation(chosen).astype(np.int64)


def _popularity_keys(
    advertisers: Advertisers, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return random keys; the advertisers with the largest are a draw without replacement.

    This is Gumbel's trick: log-weight plus noise.
    """
    noise = random.gumbel(size=len(advertisers.ids))
    return np.asarray(advertisers.log_popularity + noise, dtype=np.float64)


def _make_up_users(advertisers: Advertisers) -> list[UserHistory]:
    """Return users who prefer a few advertisers, drawn by popularity, over half a year.

    They need no event log, so any installation has them. Their histories are short.
    """
    random = np.random.default_rng(_SEED)
    return [_make_up_user(advertisers, f"user-{n}", random) for n in range(_MADE_UP_USERS)]


def _make_up_user(
    advertisers: Advertisers, user_id: str, random: np.random.Generator
) -> UserHistory:
    events = int(random.geometric(1 / (_MEAN_EVENTS + 1))) - 1
    keys = _popularity_keys(advertisers, random)
    preferred = np.argsort(-keys)[: int(random.integers(1, _MAX_PREFERRED + 1))]
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
