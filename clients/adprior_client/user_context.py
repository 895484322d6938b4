"""User -> user context: the UTF-8 JSON that the server takes.

The server checks what is inside; here it is only serialised and measured. No error message repeats
a value of the context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Event, User
from adprior_runtime import contract

__all__ = ["user_to_json"]


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
        raw = _dump_json(dict(user))
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
        "profile": dict(user.profile),
        "history": [_event_document(event) for event in user.history],
        "as_of": user.as_of,
    }


def _event_document(event: Event) -> dict[str, Any]:
    document = {
        "time": event.time,
        "action": event.action,
        "advertiser": event.advertiser,
        "category": event.category,
        "text": event.text,
    }
    return {key: value for key, value in document.items() if value is not None}


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
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"found {type(value).__name__}")


def _wrong_type(field: str, found: object, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field}: found {type(found).__name__}, expected {expected}")
