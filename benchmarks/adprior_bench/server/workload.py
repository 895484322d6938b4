"""What is asked under load: many users at many moments, each with candidates of its own.

Users come from an event log, or are made up. A request is a user at the start of a day drawn at
random, with the history before it; so prompts of all lengths are mixed as a service sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.server.made_up_users import make_up_users
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_client.types import Event, User
from adprior_client.user_context import user_to_json
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json
from adprior_runtime.text.spelling import even_out

CANDIDATES: Final = 50
"""Of each ranking."""

MAX_EVENTS: Final = 500
"""A longer history is sent from its 500th last event on: a prompt holds fewer."""

_OWN_SHARE: Final = 0.4
_SEED: Final = 20_220_701
_MADE_UP_USERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForecast:
    """A forecast as its caller keeps it: what ``prior_head`` takes.

    Attributes:
        advertiser_ids, log_probs: Of the same advertisers.
        missing_mass: Probability of the others, at most.
        exact: Whether it is certified.
    """

    advertiser_ids: list[int]
    log_probs: list[float]
    missing_mass: float
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRequest:
    """One user, asked for in any scenario.

    Attributes:
        context: The user context, JSON.
        candidate_ids, base_logits: What is to be ranked.
        forecast: The user's, made before; None until it is.
    """

    context: str
    candidate_ids: list[int]
    base_logits: list[float]
    forecast: StoredForecast | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> UserRequest:
        """Return a request from a line of `write_requests`."""
        forecast = document.pop("forecast")
        return cls(**document, forecast=None if forecast is None else StoredForecast(**forecast))


def read_requests(
    bundle: Bundle, count: int, events: Path | None, profiles: Path | None, columns: Path | None
) -> list[UserRequest]:
    """Draw requests of an event log's users, or of made-up ones where there is none.

    Args:
        bundle: Whose catalogue the candidates are of.
        count: How many requests.
        events: The log; None for made-up users.
        profiles: Of its users.
        columns: Its column map.

    Raises:
        InvalidInputError: A file is wrong, or has no users.
    """
    advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
    if events is None or columns is None:
        users = make_up_users(advertisers, count=_MADE_UP_USERS, seed=_SEED)
    else:
        users = _read_log_users(events, profiles, columns, advertisers)
    return draw_requests(users, advertisers, count=count, seed=_SEED)


def write_requests(path: Path, requests: Iterable[UserRequest]) -> Path:
    """Write requests, a JSON document a line; return the file."""
    path.write_text("".join(f"{to_json(asdict(each))}\n" for each in requests), "utf-8")
    return path


def _read_log_users(
    events: Path, profiles: Path | None, columns: Path, advertisers: Advertisers
) -> list[UserHistory]:
    """Return the users of an event log, advertisers by name."""
    users = read_users(events, profiles, ColumnMap.load(columns))
    if not users:
        raise InvalidInputError(f"{events}: no user with an event")
    names = [advertisers.name(row).decode() for row in range(len(advertisers.ids))]
    return name_advertisers(users, advertisers.ids.tolist(), names)


def draw_requests(
    users: Sequence[UserHistory], advertisers: Advertisers, *, count: int, seed: int
) -> list[UserRequest]:
    """Draw requests: a user, then one of the user's days or the day after the last.

    Up to two fifths of a ranking's candidates are advertisers of the user's own past,
    latest first; the others are drawn by popularity. Base logits are drawn around -3.

    Args:
        users: Whose histories.
        advertisers: The catalogue.
        count: How many.
        seed: Of all draws.
    """
    random = np.random.default_rng(seed)
    names = (advertisers.name(row).decode() for row in range(len(advertisers.ids)))
    rows = {even_out(name): row for row, name in enumerate(names)}
    requests = []
    for _ in range(count):
        user = users[random.integers(len(users))]
        days = sorted({event.time.date() for event in user.events}) or [datetime.now(UTC).date()]
        days.append(days[-1] + timedelta(days=1))
        as_of = datetime.combine(days[random.integers(len(days))], time(), tzinfo=UTC)
        past = [event for event in user.events if event.time < as_of][-MAX_EVENTS:]
        history = [
            Event(
                time=event.time,
                action=event.action,
                advertiser=event.advertiser,
                category=event.category,
                text=event.text,
            )
            for event in past
        ]
        context = user_to_json(User(profile=dict(user.profile), history=history, as_of=as_of))
        own = (rows.get(even_out(event.advertiser or "")) for event in reversed(past))
        chosen = _candidates([row for row in own if row is not None], advertisers, random)
        requests.append(
            UserRequest(
                context=context.decode(),
                candidate_ids=advertisers.ids[chosen].tolist(),
                base_logits=random.normal(-3, 1, len(chosen)).round(4).tolist(),
            )
        )
    return requests


def _candidates(
    own: Sequence[int], advertisers: Advertisers, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return rows, each once, in no order: the user's latest own, then by popularity."""
    count = min(CANDIDATES, len(advertisers.ids))
    known = list(dict.fromkeys(own))[: int(_OWN_SHARE * count)]
    # Gumbel's trick: the largest of log-weight plus noise are a draw without replacement.
    keys = advertisers.log_popularity + random.gumbel(size=len(advertisers.ids))
    keys[known] = np.inf
    chosen = np.argpartition(-keys, count - 1)[:count]
    return random.permutation(chosen).astype(np.int64)
