"""Checks of settings and arguments beyond their types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from adprior_client.errors import InvalidArgumentError
from adprior_client.server_sources import source_of

_MAX_NUMBER: Final = 1_000_000
"""The longest time in seconds: gRPC counts milliseconds in 32 bits."""
_METADATA_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_METADATA_VALUE: Final = re.compile(r"[\x20-\x7e]*")


def check_number(value: Any, name: str, above: float | None = 0.0) -> float:
    """Return a number as a float if it is in range.

    It must be more than ``above``, or at least 0 if ``above`` is None, and at most a million.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidArgumentError(f"{name}: found {type(value).__name__}, expected a number")
    # NaN fails this comparison.
    if not ((value >= 0 if above is None else value > above) and value <= _MAX_NUMBER):
        expected = "at least 0" if above is None else f"more than {above:g}"
        raise InvalidArgumentError(
            f"{name}: found {value}, expected {expected} and at most {_MAX_NUMBER:,}"
        )
    return float(value)


def check_concurrency(value: Any) -> int:
    """Return the limit of calls under way if it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(
            f"max_concurrency: found {value!r}, expected an integer of at least 1"
        )
    return value


def check_treatment(value: Any) -> None:
    """Refuse a ``treatment`` that is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(
            f"treatment: found {type(value).__name__}, expected True or False"
        )


def check_request_id(value: Any) -> None:
    """Refuse a request id that gRPC could not send."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"request_id: found {type(value).__name__}, expected text")
    if not (value.isascii() and value.isprintable()) or len(value) > 256:
        raise InvalidArgumentError("request_id: expected up to 256 printable ASCII characters")


def check_urls(urls: Any) -> None:
    """Refuse anything but a tuple of different forms that `source_of` knows."""
    if not isinstance(urls, tuple) or not urls:
        raise InvalidArgumentError(f"urls: found {urls!r}, expected a tuple of HOST:PORT")
    for url in urls:
        source_of(url)
    if len(set(urls)) < len(urls):
        raise InvalidArgumentError("urls: a server is named twice")


def check_metadata(metadata: Iterable[Any]) -> None:
    """Refuse metadata that gRPC cannot send as ASCII; the message quotes no value."""
    for pair in metadata:
        if not isinstance(pair, tuple) or list(map(type, pair)) != [str, str]:
            raise InvalidArgumentError("metadata: expected pairs of text")
        key, value = pair
        if not _METADATA_KEY.fullmatch(key) or key.endswith("-bin"):
            raise InvalidArgumentError(
                f"metadata: key {key!r}: expected lower case letters, digits, - _ and ., "
                "and no -bin at its end"
            )
        if not is_sendable(value):
            raise InvalidArgumentError(f"metadata: {key}: its value is not printable ASCII")


def is_sendable(value: str) -> bool:
    """Return whether gRPC can send a text as the value of metadata."""
    return _METADATA_VALUE.fullmatch(value) is not None
