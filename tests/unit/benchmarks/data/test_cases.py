from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest

from adprior_bench.data.cases import day_contexts, recorded_split
from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event

CUT = date(2024, 5, 10)


def event(day: int, advertiser: str | None, hour: int = 0) -> Event:
    return Event(
        time=datetime(2024, 5, day, hour, tzinfo=UTC), action="visit", advertiser=advertiser
    )


def user(*events: Event) -> UserHistory:
    return UserHistory(user_id="a", profile={"age": "44"}, events=events)


def test_a_context_is_the_profile_and_the_earlier_days() -> None:
    events = (event(8, "Acme"), event(9, None), event(12, "麦穗", 7), event(12, None, 8))
    first, second = day_contexts([user(*events, event(14, "Acme Pets"))], CUT)
    assert first.profile == {"age": "44"}
    assert first.as_of == datetime(2024, 5, 12, tzinfo=UTC)
    assert tuple(first.history) == events[:2]
    assert tuple(second.history) == events


def test_days_before_the_cut_and_without_an_advertiser_are_left_out() -> None:
    events = [event(day, "Acme", hour) for day in (9, 10, 11) for hour in (0, 23)]
    days = [found.as_of for found in day_contexts([user(*events, event(12, None)), user()], CUT)]
    assert days == [datetime(2024, 5, day, tzinfo=UTC) for day in (10, 11)]


def test_the_split_is_that_of_the_training_record() -> None:
    record = {"split": {"cut": "2024-05-10", "test_share": 0.2, "salt": "s", "more": 1}}
    assert recorded_split(record) == (Split(cut=CUT, test_share=0.2, salt="s"), CUT)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"split": {}},
        {"split": {"cut": None, "test_share": 0.2, "salt": "s"}},
        {"split": {"cut": "2024-05-10", "test_share": 0.0, "salt": "s"}},
    ],
)
def test_a_model_without_unseen_users_and_days_is_refused(training: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="trained without --cut or --test-share"):
        recorded_split(training)
