"""The JSON files that `adprior predict` and `adprior rank` read.

Errors name the file and the place in it. Of a user's context only the outer object is checked here;
the client checks the rest.
"""

from __future__ import annotations

import codecs
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from adprior_client.results import Advertiser, Forecast
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import InvalidInputError

STANDARD_INPUT: Final = "-"
_KINDS: Final = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
    type(None): "null",
}


def read_user(path: str) -> bytes:
    """Return the user context in a file, a JSON object, without a byte-order mark."""
    raw = _read(path)
    if len(raw) > MAX_CONTEXT_BYTES:
        raise InvalidInputError(
            f"{_shown(path)}: {len(raw)} bytes, at most {MAX_CONTEXT_BYTES} are taken"
        )
    document = _parse(raw, path)
    if not isinstance(document, dict):
        raise _wrong(path, "top level", document, "an object with profile, history and as_of")
    return raw


def read_candidates(path: str) -> tuple[list[int], list[float]]:
    """Return advertiser ids and base logits from a JSON list of ``{advertiser_id, base_logit}``."""
    document = _parse(_read(path), path)
    if not isinstance(document, list):
        raise _wrong(path, "top level", document, "a list of {advertiser_id, base_logit}")
    ids, logits = [], []
    for index, item in enumerate(document):
        ids.append(_integer(item, "advertiser_id", path, f"[{index}]"))
        logits.append(_number(item, "base_logit", path, f"[{index}]"))
    return ids, logits


def read_forecast(path: str) -> Forecast:
    """Return the forecast in a file, in the form of ``adprior predict --json``."""
    document = _parse(_read(path), path)
    advertisers = _member(document, "advertisers", path, "top level")
    if not isinstance(advertisers, list):
        raise _wrong(path, "advertisers", advertisers, "a list")
    missing_mass = _number(document, "missing_mass", path, "top level")
    if not 0.0 <= missing_mass <= 1.0:
        raise InvalidInputError(
            f"{_shown(path)}: missing_mass: found {missing_mass}, expected 0 to 1"
        )
    return Forecast(
        advertisers=tuple(
            _advertiser(item, path, f"advertisers[{index}]")
            for index, item in enumerate(advertisers)
        ),
        exact=_typed(document, "exact", bool, path, "top level"),
        missing_mass=missing_mass,
        bundle_id=_typed(document, "bundle_id", str, path, "top level"),
    )


def _advertiser(item: Any, path: str, place: str) -> Advertiser:
    return Advertiser(
        advertiser_id=_integer(item, "advertiser_id", path, place),
        name=_typed(item, "name", str, path, place),
        log_prob=_number(item, "log_prob", path, place),
    )


def _read(path: str) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(f"{_shown(path)}: cannot be read: {reason}") from error
    return raw.removeprefix(codecs.BOM_UTF8)


def _parse(raw: bytes, path: str) -> Any:
    def refuse(name: str) -> Any:
        raise InvalidInputError(f"{_shown(path)}: found {name}, which is not JSON")

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{_shown(path)}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"{_shown(path)}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInputError(
            f"{_shown(path)}: JSON nested too deep or a number too long"
        ) from error


def _member(item: Any, key: str, path: str, place: str) -> Any:
    if not isinstance(item, dict):
        raise _wrong(path, place, item, f"an object with {key}")
    if key not in item:
        keys = ", ".join(sorted(item)[:8]) or "none"
        raise InvalidInputError(f"{_shown(path)}: {place}: {key} is missing; found keys: {keys}")
    return item[key]


def _typed(item: Any, key: str, kind: type, path: str, place: str) -> Any:
    value = _member(item, key, path, place)
    if type(value) is not kind:
        raise _wrong(path, _inside(place, key), value, _KINDS[kind])
    return value


def _integer(item: Any, key: str, path: str, place: str) -> int:
    value = _member(item, key, path, place)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _wrong(path, _inside(place, key), value, "an integer of at most 64 bits")
    return value


def _number(item: Any, key: str, path: str, place: str) -> float:
    value = _member(item, key, path, place)
    if type(value) not in {int, float}:
        raise _wrong(path, _inside(place, key), value, "a number")
    # 1e999 is valid JSON, and Python reads it as infinity.
    if abs(value) > 1e38 or not math.isfinite(value):
        raise InvalidInputError(
            f"{_shown(path)}: {_inside(place, key)}: expected a number within FP32"
        )
    return float(value)


def _inside(place: str, key: str) -> str:
    return key if place == "top level" else f"{place}.{key}"


def _wrong(path: str, place: str, found: Any, expected: str) -> InvalidInputError:
    shown = str(found) if type(found) in {int, float} else _KINDS[type(found)]
    return InvalidInputError(f"{_shown(path)}: {place}: found {shown}, expected {expected}")


def _shown(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path
