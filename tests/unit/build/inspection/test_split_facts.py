from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from adprior_build.data.event_table import EventTable
from adprior_build.data.split import Split
from adprior_build.inspection.coded_log import CodedLog
from adprior_build.inspection.split_facts import SplitFacts

FIRST = date(2024, 1, 10)


def log_of(days: Sequence[date], users: int) -> CodedLog:
    """Return a log in which every user has an event on each day."""
    rows = [(f"u{user}", day.isoformat()) for user in range(users) for day in days]
    who, when = zip(*rows, strict=True)
    table = pa.table({"user": who, "time": when, "advertiser": ["Acme"] * len(rows)})
    log = EventTable(table=table, rows=np.arange(len(rows)), repeated_dropped=0, repeated_kept=0)
    return CodedLog.of(log)


@pytest.mark.parametrize(
    ("days", "cut"),
    [
        ([FIRST + timedelta(days=n) for n in range(100)], date(2024, 4, 1)),
        ([FIRST + timedelta(days=n) for n in range(10)], FIRST + timedelta(days=8)),
        ([FIRST, FIRST + timedelta(days=1)], FIRST + timedelta(days=1)),
        ([FIRST], None),
    ],
    ids=["the first of a month near 80 %", "80 %", "two days", "one day"],
)
def test_the_cut_leaves_events_on_both_sides(days: list[date], cut: date | None) -> None:
    assert SplitFacts.propose(log_of(days, 20)).cut == cut


def test_a_few_thousand_test_users_are_enough() -> None:
    days = [FIRST, FIRST + timedelta(days=9)]
    assert SplitFacts.propose(log_of(days, 50)).test_share == 0.2
    assert SplitFacts.propose(log_of(days, 20_000)).test_share == 0.1


def test_users_are_counted_as_the_split_divides_them() -> None:
    days = [FIRST + timedelta(days=n) for n in range(10)]
    facts = SplitFacts.propose(log_of(days, 50))
    split = Split(cut=facts.cut, test_share=facts.test_share)
    tested = [user for user in (f"u{n}" for n in range(50)) if split.is_test_user(user)]
    assert (facts.test_users, facts.test_events) == (len(tested), 2 * len(tested))
    assert (facts.training_users, facts.training_events) == (
        50 - len(tested),
        8 * facts.training_users,
    )
    assert facts.example in tested
