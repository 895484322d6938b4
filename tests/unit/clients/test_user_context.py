from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Event, User
from adprior_client.user_context import CheckedContext, user_to_json
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.text.values import value_text

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
def test_a_user_is_written_as_the_json_that_the_server_reads(user: User) -> None:
    raw = user_to_json(user)
    assert json.loads(raw) == _document_of(user)
    context = parse_context(raw)
    assert len(context.history) + context.dropped_events == len(user.history)
    assert list(context.profile) == [
        key for key, value in user.profile.items() if value_text(value) is not None
    ]


JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))
EVENT = {"time": "2024-05-30", "action": "buy", "advertiser": "Acme", "category": "c"}
GOOD = {"profile": {"age": 31}, "history": [EVENT, EVENT], "as_of": "2024-05-31"}


@given(
    st.sampled_from(["profile", "history", "as_of"]).map(lambda name: (GOOD, name))
    | st.sampled_from([*EVENT, "text"]).map(lambda name: (EVENT, name)),
    JSON | st.sampled_from(["2024", "2024-05-31T", "0001-01-01", "9999-12-31T23:00-10:00"]),
)
def test_the_client_refuses_what_the_server_refuses(
    place: tuple[dict[str, Any], str], value: Any
) -> None:
    part, name = place
    changed = part | {name: value}
    document = changed if part is GOOD else GOOD | {"history": [EVENT, changed]}
    try:
        parse_context(json.dumps(document).encode())
    except InvalidRequestError as error:
        refused = re.escape(str(error).partition(", expected")[0])
        with pytest.raises(InvalidArgumentError, match=f"^{refused}"):
            user_to_json(document)
    else:
        assert json.loads(user_to_json(document)) == document


def test_a_dict_is_sent_as_the_user_context() -> None:
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


def test_values_that_json_lacks_become_the_text_that_training_reads() -> None:
    values: dict[str, Any] = {
        "decimal": Decimal("34.00"),
        "single": np.float32(0.1),
        "day": date(2024, 5, 31),
        "moment": datetime(2024, 5, 31, 12, tzinfo=timezone(timedelta(hours=2))),
        "numpy": np.datetime64("2024-05-31T12:00:00"),
        "nothing": math.nan,
    }
    event = {"time": np.datetime64("2024-05-31"), "action": "a", "category": Decimal(7)}
    found = json.loads(user_to_json({"profile": values, "history": [event], "as_of": "2024-06-01"}))
    assert found["profile"] == {
        "decimal": "34",
        "single": "0.1",
        "day": "2024-05-31",
        "moment": "2024-05-31T10:00:00+00:00",
        "numpy": "2024-05-31T12:00:00",
        "nothing": None,
    }
    assert found["history"] == [{"time": "2024-05-31", "action": "a", "category": "7"}]


def test_a_checked_context_is_not_read_again() -> None:
    assert user_to_json(CheckedContext(b"{")) == b"{"


def test_bytes_are_checked_and_stay_as_they_are() -> None:
    raw = b'{ "as_of": "2024-05-31", "other": 1.50 }'
    assert user_to_json(raw) == raw


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (7, "user: found int, expected a User, a dict or JSON bytes"),
        ("{}", "user: found str"),
        ({"other": math.nan}, "user: cannot be written as JSON"),
        ({"other": {1, 2}}, "user: cannot be written as JSON: found set"),
        ({"profile": {"a": 1, "tags": {1, 2}}}, "profile, entry 1: found a set, expected a string"),
        ({"profile": {"tags": [1]}}, "profile, entry 0: found a list, expected a string"),
        (User(as_of="2024-05-31", profile={"raw": b"x"}), "profile, entry 0: found bytes"),  # type: ignore[dict-item]
        ({"history": [{}, {"category": [1]}]}, r"history\[1\]\.category: found a list"),
        ({(1, 2): 3}, "user: cannot be written as JSON"),
        (b"{", "not JSON at line 1"),
        ({}, "as_of: missing"),
        (User(as_of=date.min), "as_of: found a string that is not an ISO 8601"),
        ({"as_of": "2024-05-31", "history": [{"time": "x"}]}, r"history\[0\]\.time: found"),
        ({"as_of": "\ud800"}, "user: holds text with an unpaired surrogate"),
        (User(as_of="2024-05-31", history=[{}]), r"history\[0\]: found dict, expected an Event"),  # type: ignore[list-item]
        (User(as_of="2024-05-31", history=None), "history: found NoneType"),  # type: ignore[arg-type]
        (User(as_of="2024-05-31", profile=[]), "profile: found list, expected a mapping"),  # type: ignore[arg-type]
    ],
)
def test_values_that_json_cannot_hold_are_refused(user: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        user_to_json(user)


def test_a_circular_dict_is_refused() -> None:
    user: dict[str, Any] = {}
    user["self"] = user
    with pytest.raises(InvalidArgumentError, match="user: "):
        user_to_json(user)


def test_a_context_has_a_maximum_size() -> None:
    largest = b'{"as_of": "2024-05-31"}'.ljust(MAX_CONTEXT_BYTES)
    assert user_to_json(largest) == largest
    with pytest.raises(InvalidArgumentError, match="at most 262144 are taken"):
        user_to_json(largest + b" ")
