"""Proposes the split of a log, and counts what it leaves for training and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_build.data.split import Split
from adprior_build.inspection.coded_log import CodedLog, day_of, number_of

_Int64Array = npt.NDArray[np.int64]
_TRAINING_SHARE: Final = 0.8
_MONTH_STARTS_WITHIN: Final = (0.7, 0.9)
_TEST_SHARE: Final = 0.2
_MOST_TEST_USERS: Final = 2_000
_LEAST_TEST_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """A split, and what it leaves for training and for tests.

    Attributes:
        cut: See `Split`; None if the log has one day only.
        test_share: See `Split`.
        training_users: Users that are trained on.
        training_events: Their events before the cut.
        test_users: Test users with an event on the cut or after.
        test_events: These events.
        example: A test user with a usual number of events before the cut; None without test users.
    """

    cut: date | None
    test_share: float
    training_users: int
    training_events: int
    test_users: int
    test_events: int
    example: str | None

    @classmethod
    def propose(cls, coded: CodedLog) -> SplitFacts:
        """Propose a cut with about 80 % of the events before it, and a share of test users."""
        cut = _propose_cut(coded.day)
        few = _MOST_TEST_USERS / max(1, len(coded.users))
        share = min(_TEST_SHARE, max(_LEAST_TEST_SHARE, few))
        split = Split(cut=cut, test_share=round(share, 2))
        before = coded.day < (number_of(cut) if cut is not None else np.iinfo(np.int64).max)
        is_test = np.array([split.is_test_user(user) for user in coded.users], dtype=np.bool_)
        of_test = is_test[coded.user]
        tested = np.unique(coded.user[of_test & ~before])
        return cls(
            cut=cut,
            test_share=split.test_share,
            training_users=len(np.unique(coded.user[~of_test & before])),
            training_events=int((~of_test & before).sum()),
            test_users=len(tested),
            test_events=int((of_test & ~before).sum()),
            example=_example(coded, before, tested),
        )

    def trains_on(self, coded: CodedLog) -> npt.NDArray[np.bool_]:
        """Tell which rows a training with this split learns from."""
        split = Split(cut=self.cut, test_share=self.test_share)
        is_test = np.array([split.is_test_user(user) for user in coded.users], dtype=np.bool_)
        kept: npt.NDArray[np.bool_] = ~is_test[coded.user]
        return kept if self.cut is None else kept & (coded.day < number_of(self.cut))


def _propose_cut(days: _Int64Array) -> date | None:
    """Return the day with 80 % of the events before it; the first of a month if one is near."""
    if not len(days) or days.min() == days.max():
        return None
    ordered = np.sort(days)
    usual = max(int(ordered[int(_TRAINING_SHARE * len(ordered))]), int(ordered[0]) + 1)
    low, high = (ordered[int(share * (len(ordered) - 1))] for share in _MONTH_STARTS_WITHIN)
    firsts = [day for day in range(int(low), int(high) + 1) if day_of(day).day == 1]
    firsts = [day for day in firsts if ordered[0] < day]
    return day_of(min(firsts, key=lambda day: abs(day - usual), default=usual))


def _example(coded: CodedLog, before: npt.NDArray[np.bool_], tested: _Int64Array) -> str | None:
    """Return the user whose number of events before the cut is the median."""
    counts = np.bincount(coded.user[before], minlength=len(coded.users))
    able = tested[counts[tested] > 0] if len(tested) else tested
    if not len(able):
        return coded.users[0] if coded.users else None
    return coded.users[int(able[np.argsort(counts[able], kind="stable")[len(able) // 2]])]
