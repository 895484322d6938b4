"""Test cases from an event log: the contexts of users and days that a bundle's model never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from itertools import groupby
from pathlib import Path
from typing import Any

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_build.data.split import Split
from adprior_runtime.bundle import CATALOGUE_FILE, Bundle
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext


def day_contexts(users: Sequence[UserHistory], first_day: date) -> Iterator[UserContext]:
    """Yield a context for each user and day on or after ``first_day`` with an advertiser.

    A context has the events of strictly earlier days: the order within a day is often unknown.
    """
    for user in users:
        position = 0
        for day, group in groupby(user.events, key=lambda event: event.time.date()):
            events = list(group)
            if day >= first_day and any(event.advertiser for event in events):
                yield UserContext(
                    profile=user.profile,
                    history=user.events[:position],
                    as_of=datetime.combine(day, time(), tzinfo=UTC),
                )
            position += len(events)


def recorded_split(training: Mapping[str, Any]) -> tuple[Split, date]:
    """Return the split in a bundle's training record, and its cut.

    Raises:
        InvalidInputError: The model was trained without a cut or without test users.
    """
    split = training.get("split", {})
    if not split.get("cut") or not split.get("test_share"):
        raise InvalidInputError(
            "the bundle's model was trained without --cut or --test-share: "
            "no user and day is known to be unseen"
        )
    cut = date.fromisoformat(split["cut"])
    return Split(cut=cut, test_share=split["test_share"], salt=split["salt"]), cut


def read_test_cases(
    bundle: Bundle, events: Path, profiles: Path | None, columns: Path
) -> list[UserContext]:
    """Return the days after the training cut of the users that the bundle's model never saw.

    Raises:
        InvalidInputError: A file is wrong, or there is no such day.
    """
    split, cut = recorded_split(bundle.manifest.training)
    catalogue = read_catalogue(bundle.path(CATALOGUE_FILE))
    users = read_users(events, profiles, ColumnMap.load(columns))
    users = name_advertisers(users, catalogue.ids, catalogue.names)
    cases = list(day_contexts([user for user in users if split.is_test_user(user.user_id)], cut))
    if not cases:
        raise InvalidInputError(f"{events}: no test user has an event on or after {cut}")
    return cases
