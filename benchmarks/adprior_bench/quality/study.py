"""The data of an evaluation: training, validation and test users, and the days to forecast.

Users belong to three disjoint groups by a hash of their ids, as in the bundle's training record:

* training users before the cut: model, baselines and popularity learn from them;
* validation users from the cut on: all settings are chosen on them;
* test users from the cut on: they are scored once, at the end.

A case is a user and a day on or after the cut; its forecasts use the events of strictly earlier
days. The catalogue was selected without test users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

from adprior_bench.data.cases import recorded_split
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.categories import advertiser_categories, frequent_categories
from adprior_bench.quality.histories import (
    EncodedCase,
    EncodedUser,
    date_of,
    day_of,
    draw_cases,
    encode_users,
    encoded_cases,
)
from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_build.data.log_summary import LogSummary
from adprior_build.data.split import VALIDATION_SALT, Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext

_STAND_INS: Final = Split(test_share=0.5, salt="judged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The groups of users, and the cut.

    With stand-ins, half of the validation users are the test users, and the test users are unused.
    """

    cut: date
    test: Split
    validation: Split
    has_stand_ins: bool = False

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
        return cls(cut=cut, test=test, validation=Split(test_share=share, salt=VALIDATION_SALT))

    def group_of(self, user_id: str) -> str:
        """Return ``test``, ``validation``, ``training`` or ``unused``."""
        if self.test.is_test_user(user_id):
            return "unused" if self.has_stand_ins else "test"
        if not self.validation.is_test_user(user_id):
            return "training"
        is_stand_in = self.has_stand_ins and _STAND_INS.is_test_user(user_id)
        return "test" if is_stand_in else "validation"

    def to_json(self) -> dict[str, Any]:
        """Return the splits for a report's data."""
        return {
            "cut": self.cut.isoformat(),
            "test_share": self.test.test_share,
            "test_salt": self.test.salt,
            "validation_share": self.validation.test_share,
            "validation_salt": self.validation.salt,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """A data set, split for an evaluation.

    Attributes:
        splits: The groups and the cut.
        catalogue: The advertisers; arrays over advertisers have its rows.
        categories: Frequent categories of the training users.
        training: Training users before the cut.
        learnt: Events of the same users as the log has them, parallel to ``training.users``.
        validation: The validation users' cases, by user and day.
        test: The test users' cases, by user and day.
        later: Training users' cases from the cut on: only the simulated base ranker, which stands
            in for a production ranker, learns from them.
        histories: Whole histories of validation and test users, by user id.
        log: A summary of the whole log.
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
        """Read a data set; ``name_ids`` is that of `Catalogue.rows_by_name`.

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
        categories = frequent_categories(learnt)

        def encode(chosen: Sequence[UserHistory]) -> list[EncodedUser]:
            return encode_users(chosen, catalogue, categories, name_ids)

        cases = {
            name: list(encoded_cases(encode(group), day_of(splits.cut)))
            for name, group in groups.items()
        }
        encoded = encode(learnt)
        _require_cases(events, splits.cut, cases, encoded)
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
                names=catalogue.names,
                advertiser_categories=advertiser_categories(catalogue, encoded, categories),
                category_names=categories,
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

    def limited(self, limit: int) -> Study:
        """Return the study with at most ``limit`` validation cases and test cases.

        Cases are drawn as `draw_cases` does; a larger sample contains the smaller one.
        """
        validation = draw_cases(self.validation, limit)
        is_same = self.test is self.validation
        test = validation if is_same else draw_cases(self.test, limit)
        return replace(self, validation=validation, test=test)

    def without_test_users(self) -> Study:
        """Return the study with half of the validation users in place of the test users."""
        splits = replace(self.splits, has_stand_ins=True)
        validation, test = (
            [case for case in self.validation if splits.group_of(case.user.user_id) == name]
            for name in ("validation", "test")
        )
        return replace(self, splits=splits, validation=validation, test=test)

    def judged_on_validation(self) -> Study:
        """Return the study with the validation users as test users too: choices are in-sample."""
        return replace(self, test=self.validation)

    def sentence(self) -> str:
        """Return the size of each group."""

        def counted(cases: Sequence[EncodedCase]) -> str:
            return f"{len(cases):,} days of {len({case.user.user_id for case in cases}):,}"

        events = sum(len(user.events) for user in self.learnt)
        return (
            f"training: {len(self.learnt):,} users with {events:,} events before "
            f"{self.splits.cut}; from then on, {counted(self.validation)} validation users and "
            f"{counted(self.test)} test users"
        )

    def context(self, case: EncodedCase) -> UserContext:
        """Return a client's request for a case: the profile and the earlier days' events."""
        user = self.histories[case.user.user_id]
        return UserContext(
            profile=user.profile,
            history=user.events[: case.stop],
            as_of=datetime.combine(date_of(case.day), time(), tzinfo=UTC),
        )


def _require_cases(
    events: Path,
    cut: date,
    cases: Mapping[str, Sequence[EncodedCase]],
    training: Sequence[EncodedUser],
) -> None:
    for name, found in cases.items():
        if not found:
            raise InvalidInputError(
                f"{events}: no {name} user acts on an advertiser on or after {cut}"
            )
    if not any((user.rows >= 0).any() for user in training):
        raise InvalidInputError(
            f"{events}: no training user acts on an advertiser of the catalogue before {cut}"
        )
