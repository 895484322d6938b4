"""Types of command-line options: each parses a text, or raises an error that says what it needs."""

from __future__ import annotations

import argparse
import math
from datetime import date, datetime

from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import parse_time


def day(text: str) -> date:
    """Parse an ISO 8601 day."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _expected("a day such as 2024-05-31", text) from None


def moment(text: str) -> datetime:
    """Parse a day, its first instant, or a time; without a zone it is UTC."""
    try:
        return parse_time(text, "time")
    except InvalidRequestError:
        raise _expected("a day or time such as 2024-05-31", text) from None


def share(text: str) -> float:
    """Parse a share: at least 0 and below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise _expected("a share, at least 0 and below 1", text)
    return value


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise _expected("a number above 0", text)
    return value


def number_from_zero(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise _expected("a number of at least 0", text)
    return value


def duration(text: str) -> float:
    """Parse a time above 0 such as ``90s``, ``10m`` or ``2h``; return seconds."""
    seconds_of = {"s": 1.0, "m": 60.0, "h": 3600.0}
    seconds = _number(text[:-1]) * seconds_of.get(text[-1:], math.nan)
    if not 0 < seconds < math.inf:
        raise _expected("a time such as 90s, 10m or 2h", text)
    return seconds


def positive_integer(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise _expected("a whole number of at least 1", text)
    return int(text)


def whole_number(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not text.isdecimal():
        raise _expected("a whole number of at least 0", text)
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _expected(what: str, found: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"found {found!r}, expected {what}")
