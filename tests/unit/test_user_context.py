from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Event, User
from adprior_client.user_context import user_to_json
from adprior_runtime.context import parse_context
from adprior_runtime.contract import MAX_CONTEXT_BYTES

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
MOMENTS = (
    st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1))
    | st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1))  # noqa: DTZ001
    | st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1))  # noqa: DTZ001
)
OPTIONAL = st.none() | TEXTS
EVENTS = st.builds(
    Event, time=MOMENTS, action=TEXTS, advertiser=OPTIONAL, category=OPTIONAL, text=OPTIONAL
)
USERS = st.builds(
    User,
    profile=st.dictionaries(TEXTS, SCALARS, max_size=5),
    history=st.lists(EVENTS, max_size=5),
    as_of=MOMENTS,
)


def _iso(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _document_of(user: User) -> dict[str, Any]:
    events = [
        {"time": _iso(event.time), "action": event.action}
        | {
            key: getattr(event, key)
            for key in ("advertiser", "category", "text")
            if getattr(event, key) is not None
        }
        for event in user.history
    ]
    return {"profile": user.profile, "history": events, "as_of": _iso(user.as_of)}


@given(USERS)
def test_a_user_survives_as_json(user: User) -> None:
    assert json.loads(user_to_json(user)) == _document_of(user)


@given(USERS)
def test_the_server_takes_what_the_client_writes(user: User) -> None:
    context = parse_context(user_to_json(user))
    assert len(context.history) + context.dropped_events == len(user.history)
    assert list(context.profile) == [k for k, v in user.profile.items() if v is not None]


def test_a_dict_is_the_user_context_itself() -> None:
    user = {
        "profile": MappingProxyType({"age": np.int64(31), "vip": np.bool_(True)}),
        "as_of": date(2024, 5, 31),
        "extra": [1, None],
    }
    assert json.loads(user_to_json(user)) == {
        "profile": {"age": 31, "vip": True},
        "as_of": "2024-05-31",
        "extra": [1, None],
    }


def test_bytes_pass_through_unread() -> None:
    assert user_to_json(b"{ not even JSON") == b"{ not even JSON"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (7, "user: found int, expected a User, a dict or JSON bytes"),
        ("{}", "user: found str"),
        ({"profile": {"age": math.nan}}, "user: cannot be written as JSON"),
        ({"profile": {"tags": {1, 2}}}, "user: cannot be written as JSON: found set"),
        ({(1, 2): 3}, "user: cannot be written as JSON"),
        ({"as_of": "\ud800"}, "user: holds text with an unpaired surrogate"),
        (User(as_of="2024-05-31", history=[{}]), r"history\[0\]: found dict, expected an Event"),  # type: ignore[list-item]
        (User(as_of="2024-05-31", history=None), "history: found NoneType"),  # type: ignore[arg-type]
        (User(as_of="2024-05-31", profile=[]), "profile: found list, expected a mapping"),  # type: ignore[arg-type]
    ],
)
def test_what_json_cannot_hold_is_refused(user: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        user_to_json(user)


def test_a_circular_dict_is_refused() -> None:
    user: dict[str, Any] = {}
    user["self"] = user
    with pytest.raises(InvalidArgumentError, match="user: "):
        user_to_json(user)


def test_a_context_may_be_as_large_as_the_contract_says_and_no_larger() -> None:
    largest = b" " * MAX_CONTEXT_BYTES
    assert user_to_json(largest) == largest
    with pytest.raises(InvalidArgumentError, match="at most 262144 are taken"):
        user_to_json(largest + b" ")
