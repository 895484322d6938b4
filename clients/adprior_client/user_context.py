"""Writes a user as the JSON that the server takes, and checks it as the server does.

JSON has no decimals, dates or NumPy scalars: such a value of a profile or an event becomes the text
that it has in training (`adprior_runtime.text.values`). No error message repeats a value of the
context.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np

from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Event, User
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import check_size, parse_context, read_context
from adprior_runtime.text.values import NoTextError, value_text


class CheckedContext(bytes):
    """The JSON of a user context that was checked already: clients send it without reading it."""

    __slots__ = ()


def user_to_json(user: User | Mapping[str, Any] | bytes) -> bytes:
    """Return a user's context as JSON; bytes are checked and returned as they are.

    Raises:
        InvalidArgumentError: It has a wrong type, holds what JSON cannot, exceeds 256 KiB, or has
            a field that the server would refuse, which the message names.
    """
    try:
        if isinstance(user, bytes):
            if not isinstance(user, CheckedContext):
                parse_context(user)
            return bytes(user)  # tritonclient takes no subclass
        document = _to_document(user)
        raw = _dump_json(document)
        check_size(raw)
        read_context(_without_profile(document))
    except InvalidRequestError as error:
        raise InvalidArgumentError(str(error)) from error
    return raw


def _to_document(user: User | Mapping[str, Any]) -> dict[str, Any]:
    """Return a user context whose known fields hold values of JSON, dates and times."""
    if isinstance(user, User):
        return _user_document(user)
    if not isinstance(user, Mapping):
        raise _wrong_type("user", user, "a User, a dict or JSON bytes")
    document = dict(user)
    if "as_of" in document:
        document["as_of"] = _plain_time(document["as_of"])
    if "profile" in document:
        document["profile"] = _plain_profile(document["profile"])
    if "history" in document:
        document["history"] = _plain_history(document["history"])
    return document


def _user_document(user: User) -> dict[str, Any]:
    if not isinstance(user.profile, Mapping):
        raise _wrong_type("profile", user.profile, "a mapping")
    if not isinstance(user.history, Sequence) or isinstance(user.history, str | bytes):
        raise _wrong_type("history", user.history, "a sequence of Event")
    for index, event in enumerate(user.history):
        if not isinstance(event, Event):
            raise _wrong_type(f"history[{index}]", event, "an Event")
    events = _plain_history([_event_fields(event) for event in user.history])
    return {
        "profile": _plain_profile(user.profile),
        "history": [
            {name: value for name, value in event.items() if value is not None} for event in events
        ],
        "as_of": _plain_time(user.as_of),
    }


def _event_fields(event: Event) -> dict[str, Any]:
    names = ("time", "action", "advertiser", "category", "text")
    return {name: getattr(event, name) for name in names}


def _plain_profile(profile: Any) -> Any:
    if not isinstance(profile, Mapping):
        return _json_value(profile)
    return {
        key: _plain_value(value, f"profile, entry {index}")
        for index, (key, value) in enumerate(profile.items())
    }


def _plain_history(history: Any) -> Any:
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        return _json_value(history)
    return [
        _plain_event(event, f"history[{index}]")
        if isinstance(event, Mapping)
        else _json_value(event)
        for index, event in enumerate(history)
    ]


def _plain_event(event: Mapping[str, Any], field: str) -> dict[str, Any]:
    plain = dict(event)
    for name, value in event.items():
        if name in {"category", "text"}:
            plain[name] = _plain_value(value, f"{field}.{name}")
        elif name in {"action", "advertiser"}:
            plain[name] = _json_value(value)
        elif name == "time":
            plain[name] = _plain_time(value)
    return plain


def _plain_value(value: Any, field: str) -> str | int | float | bool | None:
    """Return the value if JSON has such values, else its text."""
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


def _plain_time(value: Any) -> Any:
    return value if type(value) in (date, datetime) else _json_value(value)


def _json_value(value: Any) -> Any:
    """Return a value as a reader of its JSON would see it."""
    if value is None or isinstance(value, str | int | float | list | dict):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return value_text(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise InvalidArgumentError(f"user: cannot be written as JSON: found {type(value).__name__}")


def _dump_json(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(
            document,
            allow_nan=False,
            default=_json_value,
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


def _without_profile(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out a profile that is an object: `_plain_value` has checked each of its values."""
    return document | {"profile": {}} if isinstance(document.get("profile"), dict) else document


def _wrong_type(field: str, found: object, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field}: found {type(found).__name__}, expected {expected}")
