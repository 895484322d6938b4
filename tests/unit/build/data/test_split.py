from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_runtime.prompt.context import Event


def test_a_user_is_on_the_same_side_on_every_machine() -> None:
    split = Split(test_share=0.3)
    test_users = [index for index in range(20) if split.is_test_user(f"user-{index}")]
    assert test_users == [2, 4, 8, 11, 12, 14]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.9])
def test_the_share_of_test_users_is_about_right(share: float) -> None:
    split = Split(test_share=share)
    found = sum(split.is_test_user(f"user-{index}") for index in range(10_000)) / 10_000
    assert abs(found - share) <= 4 * (share * (1 - share) / 10_000) ** 0.5


def test_a_larger_share_includes_the_test_users_of_a_smaller_one() -> None:
    few, many = Split(test_share=0.1), Split(test_share=0.4)
    ids = [str(index) for index in range(2000)]
    assert {i for i in ids if few.is_test_user(i)} < {i for i in ids if many.is_test_user(i)}


def test_splits_with_different_salts_are_independent() -> None:
    first, second = Split(test_share=0.5), Split(test_share=0.5, salt="validation")
    ids = [str(index) for index in range(10_000)]
    both = sum(first.is_test_user(i) and second.is_test_user(i) for i in ids)
    assert 2300 < both < 2700


def test_training_sees_neither_test_users_nor_events_on_or_after_the_cut() -> None:
    midnight = datetime(2024, 5, 31, tzinfo=UTC)
    events = [
        Event(time=midnight + timedelta(microseconds=shift), action="visit") for shift in (-1, 0, 1)
    ]
    users = [UserHistory(user_id=str(index), events=events) for index in range(50)]
    split = Split(cut=midnight.date(), test_share=0.3)
    kept = split.training_part(users)
    assert [user.user_id for user in kept] == [
        user.user_id for user in users if not split.is_test_user(user.user_id)
    ]
    assert all(list(user.events) == events[:1] for user in kept)
    assert Split().training_part(users) == users
