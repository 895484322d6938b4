"""The protocol: who is learnt from, who tunes, who is tested, and on which days.

Users fall into three disjoint groups by a hash of their id, as the bundle's training record says:

* training users, seen before the cut only: the model, the baselines and the popularity learn here;
* validation users: every setting is chosen on their days from the cut on;
* test users: their days from the cut on are asked about once, at the end.

A case is a user and a day on or after the cut; what a forecast may know of the user are the events
of strictly earlier days. The catalogue was selected without test users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from hashlib import blake2b
from pathlib import Path
from typing import Any

from adprior_bench.data.cases import recorded_split
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import (
    EncodedCase,
    EncodedUser,
    day_of,
    encode_users,
    encoded_cases,
)
from adprior_build.catalogue.catalogue import Catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_build.data.log_summary import LogSummary
from adprior_build.data.split import VALIDATION_SALT, Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext

_LEAST_EVENTS_OF_A_CATEGORY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Which user is in which group, and the cut."""

    cut: date
    test: Split
    validation: Split

    @classmethod
    def recorded(cls, training: Mapping[str, Any]) -> Splits:
        """Return the splits of a bundle's training record.

        Raises:
            InvalidInputError: The model was trained without a cut, test or validation users.
        """
        test, cut = recorded_split(training)
        share = training["split"].get("validation_share")
        if not share:
            raise InvalidInputError(
                "the bundle's model was trained without --validation-share: no user is left to "
                "choose settings on"
            )
        return cls(
            cut=cut,
            test=test,
            validation=Split(test_share=share, salt=VALIDATION_SALT),
        )

    def group_of(self, user_id: str) -> str:
        """Return ``test``, ``validation`` or ``training``."""
        if self.test.is_test_user(user_id):
            return "test"
        return "validation" if self.validation.is_test_user(user_id) else "training"

    def to_json(self) -> dict[str, Any]:
        """Return it as reports keep it for machines."""
        return {
            "cut": self.cut.isoformat(),
            "test_share": self.test.test_share,
            "test_salt": self.test.salt,
            "validation_share": self.validation.test_share,
            "validation_salt": self.validation.salt,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """The users of a data set as the protocol sees them.

    Attributes:
        splits: The groups and the cut.
        catalogue: The advertisers; every array over advertisers has its rows.
        categories: Those that the baselines look at: frequent ones of the training users.
        training: Training users before the cut.
        learnt: The same users' events as they are in the log, parallel to ``training.users``.
        validation: The validation users' cases, by user and day.
        test: The test users' cases, by user and day.
        later: Training users' cases on and after the cut: only the simulated base ranker, which
            stands for a production ranker, learns from them.
        histories: Validation and test users' whole histories, for prompts, by user id.
        log: What the whole log holds.
    """

    splits: Splits
    catalogue: Catalogue
    categories: Sequence[str]
    training: Training
    learnt: Sequence[UserHistory]
    validation: Sequence[EncodedCase]
    test: Sequence[EncodedCase]
    later: Sequence[EncodedCase]
    histories: Mapping[str, UserHistory]
    log: LogSummary

    @classmethod
    def read(
        cls,
        splits: Splits,
        catalogue: Catalogue,
        events: Path,
        profiles: Path | None,
        columns: ColumnMap,
        name_ids: Callable[[str], Sequence[int]] | None = None,
    ) -> Study:
        """Read a data set.

        Args:
            splits: The groups and the cut.
            catalogue: The advertisers.
            events: The log.
            profiles: The users' profiles.
            columns: Of both.
            name_ids: See `Catalogue.rows_by_name`.

        Raises:
            InvalidInputError: A group has no case.
        """
        users = name_advertisers(
            read_users(events, profiles, columns), catalogue.ids, catalogue.names
        )
        groups: dict[str, list[UserHistory]] = {"training": [], "validation": [], "test": []}
        for user in users:
            groups[splits.group_of(user.user_id)].append(user)
        cut = datetime.combine(splits.cut, time(), tzinfo=UTC)
        learnt = [user.before(cut) for user in groups["training"]]
        categories = _frequent_categories(learnt)

        def encode(chosen: Sequence[UserHistory]) -> list[EncodedUser]:
            return encode_users(chosen, catalogue, categories, name_ids)

        cases = {
            name: list(encoded_cases(encode(groups[name]), day_of(splits.cut))) for name in groups
        }
        for name, found in cases.items():
            if not found:
                raise InvalidInputError(
                    f"{events}: no {name} user acts on an advertiser on or after {splits.cut}"
                )
        encoded = encode(learnt)
        if not any((user.rows >= 0).any() for user in encoded):
            raise InvalidInputError(
                f"{events}: no training user acts on an advertiser of the catalogue "
                f"before {splits.cut}"
            )
        row_of = catalogue.rows_by_name(name_ids)
        return cls(
            splits=splits,
            catalogue=catalogue,
            categories=categories,
            training=Training(
                users=encoded,
                cut=day_of(splits.cut),
                advertisers=len(catalogue.ids),
                categories=len(categories),
            ),
            learnt=learnt,
            validation=cases["validation"],
            test=cases["test"],
            later=cases["training"],
            histories={
                user.user_id: user for name in ("validation", "test") for user in groups[name]
            },
            log=LogSummary.of(users, lambda name: row_of(name) is not None),
        )

    def limited(self, most: int) -> Study:
        """Return the study with at most so many validation cases, and as many test cases.

        Cases are drawn by a hash of their user and day: which are drawn depends on no other case,
        and a larger number draws these and more.
        """
        return replace(self, validation=_drawn(self.validation, most), test=_drawn(self.test, most))

    def sentence(self) -> str:
        """Return who is in each group, in a line."""

        def asked(cases: Sequence[EncodedCase]) -> str:
            return f"{len(cases):,} days of {len({case.user.user_id for case in cases}):,}"

        events = sum(len(user.events) for user in self.learnt)
        return (
            f"{len(self.learnt):,} training users with {events:,} events before "
            f"{self.splits.cut} teach; asked about are {asked(self.validation)} validation users "
            f"and {asked(self.test)} test users from then on"
        )

    def context(self, case: EncodedCase) -> UserContext:
        """Return what a client would send for a case: the profile and the earlier days' events."""
        user = self.histories[case.user.user_id]
        return UserContext(
            profile=user.profile,
            history=user.events[: case.stop],
            as_of=datetime.combine(
                date.fromordinal(case.day + date(1970, 1, 1).toordinal()), time(), tzinfo=UTC
            ),
        )


def _drawn(cases: Sequence[EncodedCase], most: int) -> list[EncodedCase]:
    def place(case: EncodedCase) -> bytes:
        return blake2b(f"{case.user.user_id}\0{case.day}".encode(), digest_size=8).digest()

    last = sorted(map(place, cases))[: max(1, most)][-1]
    return [case for case in cases if place(case) <= last]


def _frequent_categories(users: Sequence[UserHistory]) -> list[str]:
    counts = Counter(event.category for user in users for event in user.events if event.category)
    return [name for name, count in counts.most_common() if count >= _LEAST_EVENTS_OF_A_CATEGORY]
