"""Test cases from an event log: a user, a day, and the advertisers acted on that day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import groupby
from pathlib import Path
from typing import Any

from adprior_build.catalogue.catalogue import Catalogue, read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_build.data.split import Split
from adprior_runtime.bundle import CATALOGUE_FILE, PROMPT_FILE, TOKENIZER_FILE, Bundle
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.prompt.renderer import PromptRenderer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was known before a day, and the advertisers of that day.

    Attributes:
        user_id: Whose.
        context: Events of strictly earlier days only; orders of one day are often placed together.
        past: The context's advertisers, oldest first; the catalogue's own names where it has them.
        advertisers: Those of the day, likewise, each once.
    """

    user_id: str
    context: UserContext
    past: tuple[str, ...]
    advertisers: tuple[str, ...]


def day_cases(
    users: Sequence[UserHistory],
    first_day: date,
    catalogue: Catalogue,
    name_ids: Callable[[str], Sequence[int]] | None = None,
) -> Iterator[Case]:
    """Yield one case for each user and day on or after ``first_day`` with an advertiser.

    Args:
        users: Their events oldest first.
        first_day: The cut.
        catalogue: The advertisers.
        name_ids: See `Catalogue.rows_by_name`.
    """
    row_of = catalogue.rows_by_name(name_ids)

    def canonical(name: str) -> str:
        row = row_of(name)
        return name if row is None else catalogue.names[row]

    for user in users:
        position = 0
        past: list[str] = []
        for day, group in groupby(user.events, key=lambda event: event.time.date()):
            events = list(group)
            names = [canonical(event.advertiser) for event in events if event.advertiser]
            if names and day >= first_day:
                context = UserContext(
                    profile=user.profile,
                    history=user.events[:position],
                    as_of=datetime.combine(day, time(), tzinfo=UTC),
                )
                yield Case(
                    user_id=user.user_id,
                    context=context,
                    past=tuple(past),
                    advertisers=tuple(dict.fromkeys(names)),
                )
            position += len(events)
            past.extend(names)


def recorded_split(training: Mapping[str, Any]) -> tuple[Split, date]:
    """Return the split that a bundle's training record names, and its cut.

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
) -> list[Case]:
    """Return the days after the training cut of the users whom the bundle's model never saw.

    Raises:
        InvalidInputError: A file is wrong, or there is no such day.
    """
    split, cut = recorded_split(bundle.manifest.training)
    catalogue = read_catalogue(bundle.path(CATALOGUE_FILE))
    users = read_users(events, profiles, ColumnMap.load(columns))
    users = name_advertisers(users, catalogue.ids, catalogue.names)
    unseen = [user for user in users if split.is_test_user(user.user_id)]
    renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
    cases = list(day_cases(unseen, cut, catalogue, renderer.name_ids))
    if not cases:
        raise InvalidInputError(f"{events}: no test user has an event on or after {cut}")
    return cases
