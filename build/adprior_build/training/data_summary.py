"""What a training is given, in words: rows, users, dates, and what of them it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adprior_build.catalogue.catalogue import Catalogue
from adprior_build.data.event_log import UserHistory


def describe_data(
    path: Path,
    catalogue: Catalogue,
    *,
    read: Sequence[UserHistory],
    training: Sequence[UserHistory],
    validation: Sequence[UserHistory],
) -> list[str]:
    """Return lines that tell what was read and what is trained on.

    Args:
        path: The event log.
        catalogue: The advertisers.
        read: All users, with all events.
        training: The users trained on, with the events before the cut.
        validation: Those that choose the epoch, likewise.
    """
    row_of = catalogue.rows_by_name()
    kept = [*training, *validation]
    events = [event for user in kept for event in user.events]
    nameless = sum(row_of(event.advertiser or "") is None for event in events)
    of_kept = {user.user_id for user in kept}
    after = sum(len(u.events) for u in read if u.user_id in of_kept) - len(events)
    lines = [f"{path}: {_count(read)}{_dates(read)}"]
    lines.append(f"trains on {_count(training)}, validates on {_count(validation)}")
    left_out = [
        (_count([u for u in read if u.user_id not in of_kept]), len(read) - len(kept)),
        (f"{after:,} events from the cut on", after),
        (f"{nameless:,} events as targets, which name no advertiser of the catalogue", nameless),
    ]
    if told := [text for text, number in left_out if number]:
        lines.append(f"leaves out {'; '.join(told)}")
    return lines


def _count(users: Sequence[UserHistory]) -> str:
    return f"{sum(len(user.events) for user in users):,} events of {len(users):,} users"


def _dates(users: Sequence[UserHistory]) -> str:
    """Events are in the order of time."""
    times = [user.events[place].time.date() for user in users if user.events for place in (0, -1)]
    return f", {min(times)} to {max(times)}" if times else ""
