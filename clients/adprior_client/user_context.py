"""User -> user context: the UTF-8 JSON that the server takes.

The server checks what is inside; here it is only serialised and measured. Values of a profile and
of an event that JSON does not have, such as decimals, dates and NumPy's, go as the text that
training reads of them (`adprior_runtime.text.values`). No error message repeats a
value of the context.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Event, User
from adprior_runtime import contract
from adprior_runtime.text.values import NoTextError, value_text


def user_to_json(user: User | Mapping[str, Any] | bytes) -> bytes:
    """Serialise a user to the user context's UTF-8 JSON; bytes pass through unread.

    Raises:
        InvalidArgumentError: It is no user, holds what JSON cannot, or exceeds 256 KiB.
    """
    if isinstance(user, bytes):
        raw = user
    elif isinstance(user, User):
        raw = _dump_json(_user_document(user))
    elif isinstance(user, Mapping):
        raw = _dump_json(_plain_document(user))
    else:
        raise _wrong_type("user", user, "a User, a dict or JSON bytes")
    if len(raw) > contract.MAX_CONTEXT_BYTES:
        raise InvalidArgumentError(
            f"user: {len(raw)} bytes of JSON, at most {contract.MAX_CONTEXT_BYTES} are taken"
        )
    return raw


def _user_document(user: User) -> dict[str, Any]:
    if not isinstance(user.profile, Mapping):
        raise _wrong_type("profile", user.profile, "a mapping")
    if not isinstance(user.history, Sequence) or isinstance(user.history, str | bytes):
        raise _wrong_type("history", user.history, "a sequence of Event")
    for index, event in enumerate(user.history):
        if not isinstance(event, Event):
            raise _wrong_type(f"history[{index}]", event, "an Event")
    return {
        "profile": _plain_profile(user.profile),
        "history": [
            _event_document(event, f"history[{index}]") for index, event in enumerate(user.history)
        ],
        "as_of": user.as_of,
    }


def _event_document(event: Event, field: str) -> dict[str, Any]:
    document = {
        "time": event.time,
        "action": event.action,
        "advertiser": event.advertiser,
        "category": _plain_value(event.category, f"{field}.category"),
        "text": _plain_value(event.text, f"{field}.text"),
    }
    return {key: value for key, value in document.items() if value is not None}


def _plain_document(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user context with JSON's values where they are looked at; the rest as it is."""
    document = dict(user)
    if isinstance(profile := document.get("profile"), Mapping):
        document["profile"] = _plain_profile(profile)
    history = document.get("history")
    if isinstance(history, Sequence) and not isinstance(history, str | bytes):
        document["history"] = [
            _plain_event(event, f"history[{index}]") if isinstance(event, Mapping) else event
            for index, event in enumerate(history)
        ]
    return document


def _plain_event(event: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    texts = {
        name: _plain_value(event[name], f"{field}.{name}")
        for name in ("category", "text")
        if type(event.get(name, "")) is not str
    }
    return {**event, **texts} if texts else event


def _plain_profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain_value(value, f"profile, entry {index}")
        for index, (key, value) in enumerate(profile.items())
    }


def _plain_value(value: Any, field: str) -> str | int | float | bool | None:
    """Return a value as JSON has it, or its text where JSON has no such value."""
    if isinstance(value, np.bool_ | np.integer) and not isinstance(value, np.timedelta64):
        found: bool | int = value.item()
        return found
    if value is None or type(value) in (str, bool, int):
        plain: str | bool | int | None = value
        return plain
    if type(value) is float and math.isfinite(value):
        return value
    try:
        return value_text(value)
    except NoTextError as error:
        raise InvalidArgumentError(
            f"{field}: found {error}, expected a string, number, boolean, date or None"
        ) from error


def _dump_json(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(
            document,
            allow_nan=False,
            default=_to_json_value,
            ensure_ascii=False,
            separators=(",", ":"),
        )
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("user: holds text with an unpaired surrogate") from error
    except RecursionError as error:
        raise InvalidArgumentError("user: nested too deep for JSON") from error
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"user: cannot be written as JSON: {error}") from error


def _to_json_value(value: object) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return value_text(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"found {type(value).__name__}")


def _wrong_type(field: str, found: object, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field}: found {type(found).__name__}, expected {expected}")
