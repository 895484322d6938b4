"""Finds one user in an event log, without making the events of the others."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, read_known_profiles
from adprior_build.data.event_table import event_rows, read_event_table
from adprior_build.data.time_columns import read_moments
from adprior_runtime.errors import InvalidInputError

_COMPARED: Final = 2_000
"""Ids on each side of the wanted one, in order, among which the nearest are looked for."""
_NEAREST: Final = 3


def find_user(
    events_path: Path,
    profiles_path: Path | None,
    columns: ColumnMap,
    user_id: str,
    *,
    say: Callable[[str], None],
) -> tuple[UserHistory, datetime]:
    """Return a user's profile and history, as `read_users` does, and the end of the log.

    Args:
        events_path: The event log.
        profiles_path: The profiles, if any.
        columns: The names of their columns.
        user_id: The user, with events or a profile.
        say: Reports one line about the profiles.

    Returns:
        The user, and the first instant of the day after the log's last event.

    Raises:
        InvalidInputError: A file cannot be read, one of the user's rows is wrong, or nobody has
            this id; the message names the nearest ids.
    """
    log = read_event_table(events_path, columns.events)
    profiles = read_known_profiles(profiles_path, columns, say)
    mine = log.of_user(user_id)
    if not mine.table.num_rows and user_id not in profiles.by_user:
        known = pc.unique(log.table["user"]).drop_null().to_pylist()
        raise _unknown(events_path, user_id, {*known, *profiles.by_user})
    rows = event_rows(mine.table, columns.events, str(events_path), mine.rows)
    found = sorted(((event, item) for _, event, item in rows), key=lambda row: row[0].time)
    user = UserHistory(
        user_id=user_id,
        profile=profiles.by_user.get(user_id, {}),
        events=tuple(event for event, _ in found),
        items=tuple(item for _, item in found),
        covered=user_id not in profiles.uncovered,
    )
    return user, _end(read_moments(log.table["time"]))


def _end(moments: Any) -> datetime:
    known = moments[~np.isnat(moments)]
    if not len(known):
        return datetime.now(UTC)
    last = known.max().astype("datetime64[D]").item()
    return datetime.combine(last + timedelta(days=1), time(), tzinfo=UTC)


def _unknown(path: Path, user_id: str, known: Iterable[str]) -> InvalidInputError:
    ids = sorted(filter(None, known))
    place = bisect_left(ids, user_id)
    pool = ids[max(0, place - _COMPARED) : place + _COMPARED]
    near = difflib.get_close_matches(user_id, pool, _NEAREST)
    advice = f"the nearest ids: {', '.join(near)}" if near else f"an id is {(ids or [''])[0]}"
    return InvalidInputError(f"{path}: no user {user_id!r} among {len(ids):,}; {advice}")
