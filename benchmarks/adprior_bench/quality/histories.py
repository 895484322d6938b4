"""Users and cases as arrays, for all baselines and metrics.

Times are days since 1970. An advertiser is a row of the catalogue, `NONE` if an event has none, or
a number below `NONE` for each name that is not in the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.event_log import UserHistory
from adprior_runtime.text.normalisation import normalise_text

Int32Array: TypeAlias = npt.NDArray[np.int32]
Float64Array: TypeAlias = npt.NDArray[np.float64]

NONE = -1
"""No advertiser, or no category."""

_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedUser:
    """One user's events, oldest first.

    Attributes:
        user_id: User id of the log.
        profile: Values by key.
        days: int32 [events].
        rows: int32 [events], advertisers as the module describes.
        categories: int32 [events], `NONE` without one.
        covered: Whether the log is known to hold nearly all of the user's events.
    """

    user_id: str
    profile: Mapping[str, str]
    days: Int32Array
    rows: Int32Array
    categories: Int32Array
    covered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedCase:
    """A user and a day: the events of strictly earlier days, and the day's advertisers.

    Attributes:
        user: The user.
        stop: Number of the user's events before the day.
        day: The day.
        targets: int32 [targets], distinct rows of the day's advertisers.
        missed_repeated: Number of the day's advertisers that are not in the catalogue, which makes
            every ranker miss them, and that the user acted on before.
        missed_new: Number of the others that are not in the catalogue.
    """

    user: EncodedUser
    stop: int
    day: int
    targets: Int32Array
    missed_repeated: int
    missed_new: int

    @property
    def missed(self) -> int:
        """Number of the day's advertisers that are not in the catalogue."""
        return self.missed_repeated + self.missed_new

    @property
    def past(self) -> tuple[Int32Array, Int32Array]:
        """The rows of earlier advertisers, oldest first, and their days: int32 [m] each."""
        rows = self.user.rows[: self.stop]
        known = rows >= 0
        return rows[known], self.user.days[: self.stop][known]


def day_of(moment: date) -> int:
    """Return a date as days since 1970."""
    return moment.toordinal() - _EPOCH


def date_of(day: int) -> date:
    """Return days since 1970 as a date."""
    return date.fromordinal(day + _EPOCH)


def encode_users(
    users: Sequence[UserHistory],
    catalogue: Catalogue,
    categories: Sequence[str],
    name_ids: Callable[[str], Sequence[int]] | None = None,
) -> list[EncodedUser]:
    """Encode users; categories that are not listed become `NONE`.

    ``name_ids`` is that of `Catalogue.rows_by_name`.
    """
    known_row = catalogue.rows_by_name(name_ids)
    unknown: dict[str, int] = {}
    places = {name: place for place, name in enumerate(categories)}

    def row_of(name: str | None) -> int:
        if not name:
            return NONE
        row = known_row(name)
        return unknown.setdefault(normalise_text(name), -2 - len(unknown)) if row is None else row

    return [
        EncodedUser(
            user_id=user.user_id,
            profile=user.profile,
            days=np.array([day_of(event.time.date()) for event in user.events], dtype=np.int32),
            rows=np.array([row_of(event.advertiser) for event in user.events], dtype=np.int32),
            categories=np.array(
                [places.get(event.category or "", NONE) for event in user.events], dtype=np.int32
            ),
            covered=user.covered,
        )
        for user in users
    ]


def encoded_cases(users: Sequence[EncodedUser], first_day: int) -> Iterator[EncodedCase]:
    """Yield a case for each user and day on or after ``first_day`` with an advertiser."""
    for user in users:
        days, has_name = user.days, user.rows != NONE
        for day in np.unique(days[has_name & (days >= first_day)]).tolist():
            start, end = np.searchsorted(days, [day, day + 1])
            rows = np.unique(user.rows[start:end])
            missed = rows[rows < NONE]
            repeated = int(np.isin(missed, user.rows[:start]).sum())
            yield EncodedCase(
                user=user,
                stop=int(start),
                day=day,
                targets=rows[rows >= 0],
                missed_repeated=repeated,
                missed_new=len(missed) - repeated,
            )


def before(user: EncodedUser, day: int) -> EncodedUser:
    """Return a user with the events before a day only."""
    stop = int(np.searchsorted(user.days, day))
    return replace(
        user, days=user.days[:stop], rows=user.rows[:stop], categories=user.categories[:stop]
    )


def draw_cases(cases: Sequence[EncodedCase], limit: int) -> list[EncodedCase]:
    """Return at most about ``limit`` cases, drawn by a hash of user and day.

    The draw of a case does not depend on the others. Cases of one user and day go together.
    """

    def place(case: EncodedCase) -> bytes:
        return blake2b(f"{case.user.user_id}\0{case.day}".encode(), digest_size=8).digest()

    if len(cases) <= limit:
        return list(cases)
    last = sorted(map(place, cases))[limit - 1]
    return [case for case in cases if place(case) <= last]
