"""Reads times in ISO 8601, and in the variants that data warehouses export."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

_UTC: Final = re.compile(r"(?<=\d) ?(?:UTC|GMT)$")
_SPACE_BEFORE_ZONE: Final = re.compile(r"(?<=\d) +(?=(?:Z|[+-]\d{2}(?::?\d{2})?)$)")
_ZONE_NAME: Final = re.compile(r"(?<=[\dZ])\[[^\]]*\]$")
_DIGITS_OF_A_DAY: Final = 8


def read_time(text: str) -> datetime:
    """Return the date or time of a text, with a zone if the text has one.

    Besides ISO 8601, with a space or a ``T``: ``2024-05-31 12:00:00 UTC`` (BigQuery, Trino),
    ``… +0000`` (Snowflake), ``…+00`` (Redshift, Postgres), ``…Z[UTC]`` (Java). Digits beyond
    microseconds are cut off.

    Raises:
        ValueError: The text is not a time.
    """
    text = text.strip()
    if text.isdigit() and len(text) != _DIGITS_OF_A_DAY:
        raise ValueError("digits alone, which may be seconds since 1970")
    text = _ZONE_NAME.sub("", text)
    if ":" in text:
        text = _SPACE_BEFORE_ZONE.sub("", _UTC.sub("+00:00", text))
    return datetime.fromisoformat(text)
