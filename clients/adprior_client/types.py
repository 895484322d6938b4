"""Users, events, and the types that requests and results share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = str | int | float | bool | Decimal | date | np.generic | None
"""A value of a profile. JSON has no dates, decimals or NumPy scalars: they are sent as the text
that they have in training. NaN, and text that is only white space, count as absent."""
Moment: TypeAlias = str | date | datetime
"""ISO 8601 text, a date or a date-time; without a zone it is UTC."""

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
Numbers: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
UserId: TypeAlias = str | int
"""Chooses the user's server and finds their stored forecast; never sent."""


class Source(StrEnum):
    """The source of a forecast, or of the forecast of a ranking."""

    LIVE = "live"
    STORED = "stored"
    CALLER = "caller"
    NONE = "none"


class Reason(StrEnum):
    """The reason why a result is not the live answer."""

    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"
    BREAKER_OPEN = "breaker_open"
    BAD_ANSWER = "bad_answer"
    OTHER_BUNDLE = "other_bundle"
    REFUSED = "refused"
    DENIED = "denied"
    CANCELLED = "cancelled"
    KILL_SWITCH = "kill_switch"
    CONTROL = "control"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing a user did.

    Attributes:
        time: When it happened.
        action: Such as purchase, click, search, visit.
        advertiser: The advertiser's name.
        category: A category.
        text: Free text, such as a query or a title.
    """

    time: Moment
    action: str
    advertiser: str | None = field(default=None, repr=False)
    category: Scalar = field(default=None, repr=False)
    text: Scalar = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user, as the caller knows them.

    Attributes:
        profile: Flat map with any keys; absent values are ignored.
        history: Events; the server sorts them by time and drops those after ``as_of``.
        as_of: The time the forecast is for; a bare date includes that whole day.
    """

    profile: Mapping[str, Scalar] = field(default_factory=dict, repr=False)
    history: Sequence[Event] = field(default=(), repr=False)
    as_of: Moment
