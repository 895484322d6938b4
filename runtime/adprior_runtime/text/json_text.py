"""JSON as the standard defines it: NaN and infinities become null.

Python would write NaN, Infinity and -Infinity, which other readers refuse. Every JSON document and
every ``--json`` output of this project uses this function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(document: Any, **options: Any) -> str:
    """Return a document as JSON, with options of `json.dumps`; NaN and infinities become null."""
    try:
        return json.dumps(document, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_with_nulls(document), allow_nan=False, **options)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
