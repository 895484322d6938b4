"""The JSON documents that the page sends, checked."""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request

from adprior_client.cli.json_document import JsonValue, parse_json
from adprior_explore.server.problems import RefusedError
from adprior_explore.subject import Subject
from adprior_runtime.contract import MAX_TOP_K
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

MOST_BYTES: Final = 2 << 20
"""Largest body: a context of 256 KiB, 10,000 candidates and a forecast fit."""
MOST_BYTES_OF_USERS: Final = 16 << 20
"""Largest body with many users."""
MOST_USERS: Final = 100
"""Some browsers end a request that is not answered within five minutes."""
_SOURCE: Final = "request"
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_document(request: Request, most_bytes: int) -> JsonValue:
    """Read a request's body.

    Raises:
        RefusedError: It is too large, or not declared as JSON.
        InvalidInputError: It is no JSON, or holds half a surrogate pair, which no text has.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type: found {kind or 'none'}, expected application/json",
            "Send JSON.",
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"request: more than {most_bytes} bytes",
                "Send fewer events, candidates or users.",
            )
    document = parse_json(bytes(body), _SOURCE)
    if _SURROGATE.search(body):
        _refuse_unpaired(document)
    return document


def with_integer_ids(value: JsonValue) -> JsonValue:
    """Return candidates, or a forecast, whose advertisers' ids are integers.

    JavaScript has no exact integers above 2^53, so the page has such an id as a string of digits.
    All else stays as it is, for the check of its reader.
    """
    return replace(value, value=_with_integer_ids(value.value))


def _with_integer_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_integer_ids(item) for item in value]
    if isinstance(value, dict):
        return {
            key: int(item) if _is_id(key, item) else _with_integer_ids(item)
            for key, item in value.items()
        }
    return value


def _is_id(key: str, item: Any) -> bool:
    return key == "advertiser_id" and isinstance(item, str) and bool(_DIGITS.fullmatch(item))


def _refuse_unpaired(document: JsonValue) -> None:
    try:
        to_json(document.value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        message = f"{_SOURCE}: holds text with an unpaired surrogate, expected Unicode"
        raise InvalidInputError(message) from error


def subjects_of(value: JsonValue) -> list[Subject]:
    """Check a list of contexts."""
    items = value.items("a list of users")
    if not 1 <= len(items) <= MOST_USERS:
        raise value.wrong(f"1 to {MOST_USERS} users")
    return [Subject.of(item) for item in items]


def count_of(document: JsonValue, key: str) -> int | None:
    """Return a number of advertisers or interests; None if the page leaves the choice."""
    value = document.get(key)
    if value is None:
        return None
    if not 1 <= (count := value.integer()) <= MAX_TOP_K:
        raise value.wrong(f"1 to {MAX_TOP_K}")
    return count
