"""Makes a user's context, the JSON that a server reads, from a profile and events of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.prompt.context import Event, UserContext, check_size, read_context
from adprior_runtime.text.json_text import to_json

_SHORTEST_EVENT: Final = '{"time":"2024-01-01T00:00:00+00:00","action":""},'
MOST_EVENTS: Final = MAX_CONTEXT_BYTES // len(_SHORTEST_EVENT) + 1
"""No context has room for more."""


def make_context(
    profile: Mapping[str, str], events: Sequence[Event], as_of: datetime
) -> tuple[bytes, UserContext]:
    """Return a context, as JSON and parsed, with the newest events that fit the size limit.

    Args:
        profile: The user's profile.
        events: The user's events up to ``as_of``, oldest first.
        as_of: The forecast's time.

    Raises:
        InvalidRequestError: The profile alone is too large.
    """
    document: dict[str, Any] = {"profile": dict(profile), "as_of": as_of}
    start = _dump(document)
    room = MAX_CONTEXT_BYTES - len(start) - len(',"history":[]')
    history: list[dict[str, Any]] = []
    texts: list[bytes] = []
    for event in reversed(events):
        fields = _event_document(event)
        text = _dump(fields)
        room -= len(text) + 1
        if room < 0:
            break
        history.append(fields)
        texts.append(text)
    raw = start[:-1] + b',"history":[' + b",".join(reversed(texts)) + b"]}"
    check_size(raw)
    return raw, read_context(document | {"history": history[::-1]})


def _event_document(event: Event) -> dict[str, Any]:
    texts = {name: getattr(event, name) for name in ("advertiser", "category", "text")}
    given = {name: value for name, value in texts.items() if value is not None}
    return {"time": event.time, "action": event.action} | given


def _dump(document: dict[str, Any]) -> bytes:
    text = to_json(document, default=datetime.isoformat, ensure_ascii=False, separators=(",", ":"))
    return text.encode()
