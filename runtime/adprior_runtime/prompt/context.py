"""The user context: what a caller knows about one user, parsed from JSON and checked.

Training and serving build prompts from the same `UserContext`, so that the model is queried as it
was trained. No error message repeats a value of the context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, Final

from adprior_runtime.contract import MAX_CONTEXT_BYTES, USER_CONTEXT
from adprior_runtime.errors import InvalidReason, InvalidRequestError
from adprior_runtime.text.times import read_time
from adprior_runtime.text.values import NoTextError, value_text

_LAST_INSTANT: Final = time(23, 59, 59, 999_999, tzinfo=UTC)
_TEXT_FIELDS: Final = ("advertiser", "category", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One action of a user.

    Attributes:
        time: The time in UTC; a bare date means its first instant.
        action: Its kind: purchase, click, search, visit ...
        advertiser: The advertiser's name, if any.
        category: The category, if any.
        text: Free text (a query, a title), if any.
    """

    time: datetime
    action: str
    advertiser: str | None = None
    category: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    """A user's profile and history, and the time the forecast is for.

    Attributes:
        profile: Flat map of texts; absent values are left out.
        history: Events up to ``as_of``, oldest first; another order or a later event is refused.
        as_of: The forecast's time in UTC; a bare date means its last instant.
        dropped_events: How many events after ``as_of`` were dropped (clocks differ).
    """

    profile: Mapping[str, str]
    history: Sequence[Event]
    as_of: datetime
    dropped_events: int = 0

    def __post_init__(self) -> None:
        """Refuse a history that is out of order or goes beyond ``as_of``."""
        for index, (earlier, later) in enumerate(pairwise(self.history), start=1):
            if later.time < earlier.time:
                raise _wrong_field(f"history[{index}].time: not oldest first")
        if self.history and self.history[-1].time > self.as_of:
            raise _wrong_field(f"history[{len(self.history) - 1}].time: after as_of")


def parse_context(raw: bytes) -> UserContext:
    """Parse and check one user context (UTF-8 JSON, at most 256 KiB).

    Unknown keys are ignored. Events are put in order of time; those after ``as_of`` are dropped
    and counted.

    Raises:
        InvalidRequestError: A field is wrong. The message names it, never its value.
    """
    check_size(raw)
    document = _load_json(raw)
    if not isinstance(document, dict):
        raise _wrong_type(USER_CONTEXT, "an object", document)
    return read_context(document)


def check_size(raw: bytes) -> None:
    """Refuse a user context of more than 256 KiB.

    Raises:
        InvalidRequestError: With both sizes.
    """
    if len(raw) > MAX_CONTEXT_BYTES:
        raise InvalidRequestError(
            f"{USER_CONTEXT}: {len(raw)} bytes, at most {MAX_CONTEXT_BYTES} are taken",
            InvalidReason.TOO_LARGE,
        )


def read_context(document: dict[str, Any]) -> UserContext:
    """Check one user context that is parsed already; its times may be `datetime` or `date`.

    Raises:
        InvalidRequestError: A field is wrong. The message names it, never its value.
    """
    as_of = parse_time(_required(document, "as_of", "as_of"), "as_of", end_of_day=True)
    history = _list(document.get("history", []), "history")
    events = [_event(item, f"history[{index}]") for index, item in enumerate(history)]
    kept = sorted((event for event in events if event.time <= as_of), key=lambda event: event.time)
    return UserContext(
        profile=_profile(document.get("profile", {})),
        history=tuple(kept),
        as_of=as_of,
        dropped_events=len(events) - len(kept),
    )


def parse_time(value: Any, field: str, *, end_of_day: bool = False) -> datetime:
    """Parse an ISO 8601 date or date-time into UTC; one without a zone is taken as UTC.

    A `datetime`, a `date` and the formats of `adprior_runtime.text.times` are accepted too. With
    ``end_of_day`` a bare date means its last instant instead of its first.

    Raises:
        InvalidRequestError: It is not a string in ISO 8601.
    """
    if not isinstance(value, str | date):
        raise _wrong_type(field, "an ISO 8601 date or time", value)
    try:
        moment = _read_moment(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if end_of_day and _is_bare_date(value):
            moment = datetime.combine(moment.date(), _LAST_INSTANT)
        _ = moment - timedelta(days=1)
    except (ValueError, OverflowError):
        raise _wrong_field(
            f"{field}: found a string that is not an ISO 8601 date or time, such as 2024-05-31"
        ) from None
    return moment


def _read_moment(value: str | date) -> datetime:
    if isinstance(value, str):
        return read_time(value)
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _is_bare_date(value: str | date) -> bool:
    if isinstance(value, date):
        return not isinstance(value, datetime)
    try:
        date.fromisoformat(value.strip())
    except ValueError:
        return False
    return True


def _load_json(raw: bytes) -> Any:
    try:
        # "-sig" skips the byte-order mark that some tools write.
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _not_json(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"not JSON at line {error.lineno}, column {error.colno}") from None
    except (RecursionError, ValueError):
        raise _not_json("JSON nested too deep or a number too long") from None


def _refuse_constant(name: str) -> Any:
    raise _not_json(f"found {name}, which is not JSON")


def _not_json(found: str) -> InvalidRequestError:
    return InvalidRequestError(f"{USER_CONTEXT}: {found}", InvalidReason.NOT_JSON)


def _required(document: dict[str, Any], key: str, field: str) -> Any:
    if key not in document:
        raise _wrong_field(f"{field}: missing")
    return document[key]


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong_type(field, "a list", value)
    return value


def _profile(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong_type("profile", "an object", value)
    profile = {}
    for index, (key, item) in enumerate(value.items()):
        field = f"profile, entry {index}"
        text = _value_text(item, field)
        if text is not None:
            profile[_clean_text(key, field)] = text
    return profile


def _event(value: Any, field: str) -> Event:
    if not isinstance(value, dict):
        raise _wrong_type(field, "an object", value)
    texts = {}
    for name in _TEXT_FIELDS:
        found = value.get(name)
        if name == "advertiser" and found is not None:
            found = _text(found, f"{field}.{name}")
        text = _value_text(found, f"{field}.{name}")
        if text is not None:
            texts[name] = text
    return Event(
        time=parse_time(_required(value, "time", f"{field}.time"), f"{field}.time"),
        action=_text(_required(value, "action", f"{field}.action"), f"{field}.action"),
        **texts,
    )


def _value_text(value: Any, field: str) -> str | None:
    try:
        text = value_text(value)
    except NoTextError:
        raise _wrong_type(field, "a string, number, boolean or null", value) from None
    return None if text is None else _clean_text(text, field)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(field, "a string", value)
    return _clean_text(value, field)


def _clean_text(value: str, field: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong_field(f"{field}: holds an unpaired surrogate") from None
    return value


def _wrong_type(field: str, expected: str, found: Any) -> InvalidRequestError:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    matching = (shown for kind, shown in kinds.items() if isinstance(found, kind))
    shown = "null" if found is None else next(matching, "a number")
    return _wrong_field(f"{field}: found {shown}, expected {expected}")


def _wrong_field(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, InvalidReason.FIELD)
