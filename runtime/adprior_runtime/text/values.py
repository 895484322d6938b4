"""The text that a prompt shows for a value, the same in training, serving, bulk and clients.

A value has the same text whether it comes from CSV, Parquet or JSON, and as a type of Python, NumPy
or Arrow. So a model reads the tokens that it was trained on::

    text             as it was written, without white space at its ends
    34.0, 34         34                    whole numbers have no fraction
    0.1 (any width)  0.1                   the shortest digits that give the number
    True             true
    a date           2024-05-31
    a time of a day  2024-05-31T12:00:00   with a zone: the same moment in UTC, and +00:00
    nothing          None, NaN, an infinity, and text without visible characters

Lists, mappings, bytes and other compound values have no text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import numpy as np

from adprior_runtime.text.normalisation import normalise_text

_ABSENT: Final = frozenset({"NoneType", "NAType", "NaTType"})
"""Types of absent values: Python's, and those of pandas, which is not imported here."""
_LONGEST_DECIMAL: Final = 400
"""Number of digits: more than any float has, fewer than Python's limit for integers as text."""


class NoTextError(TypeError):
    """A value is of a kind that has no text; the message names the kind, never the value."""


def value_text(value: Any) -> str | None:
    """Return the text that a prompt shows for a value; None if the value counts as absent.

    Raises:
        NoTextError: The value is a list, a mapping, bytes, or of another such kind.
    """
    if type(value).__name__ in _ABSENT:
        return None
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    if hasattr(value, "as_py"):  # an Arrow scalar; Arrow is not imported here
        return _arrow_text(value)
    raise NoTextError(_kind_of(value))


def id_text(value: Any) -> str | None:
    """Return a user's id as text: a text stays unchanged, other values go through `value_text`.

    Raises:
        NoTextError: As in `value_text`.
    """
    return str.__str__(value) or None if isinstance(value, str) else value_text(value)


def _text_text(value: str) -> str | None:
    text = str.__str__(value).strip()
    return text if normalise_text(text) else None


def _float_text(value: float | np.floating[Any]) -> str | None:
    if isinstance(value, np.float16 | np.float32):
        value = float(str(value))  # the fewest digits that identify it
    number = float(value)
    if not math.isfinite(number):
        return None
    return str(int(number)) if number.is_integer() else repr(number)


def _decimal_text(value: Decimal) -> str | None:
    if not value.is_finite():
        return None
    if abs(value.adjusted()) < _LONGEST_DECIMAL and value == value.to_integral_value():
        return str(int(value))
    return _float_text(float(value))


def _time_text(value: date | time | np.datetime64) -> str | None:
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            return None
        is_day = np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D")
        found = value.astype("datetime64[D]" if is_day else "datetime64[us]").item()
        if not isinstance(found, date):
            raise NoTextError("a time beyond the calendar")
        value = found
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            try:
                value = value.astimezone(UTC)
            except OverflowError:  # the first or the last day, in another zone
                raise NoTextError("a time beyond the calendar") from None
        return value.isoformat(timespec="microseconds" if value.microsecond else "seconds")
    return value.isoformat()


def _refuse_duration(value: Any) -> str | None:
    raise NoTextError(_kind_of(value))


def _arrow_text(value: Any) -> str | None:
    found = value.as_py()
    narrow = {"float": np.float32, "halffloat": np.float16}.get(str(value.type))
    return value_text(found if narrow is None or found is None else narrow(found))


_WRITERS: Final[Sequence[tuple[type | tuple[type, ...], Callable[[Any], str | None]]]] = (
    (str, _text_text),
    ((bool, np.bool_), lambda value: "true" if value else "false"),
    (np.timedelta64, _refuse_duration),  # an integer to NumPy
    ((int, np.integer), lambda value: str(int(value))),
    ((float, np.floating), _float_text),
    (Decimal, _decimal_text),
    ((date, time, np.datetime64), _time_text),
    (UUID, str),
)
"""The function that writes each kind of value; the first kind that fits counts."""


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple | np.ndarray):
        return "a list"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes"
    return f"a {type(value).__name__}"
