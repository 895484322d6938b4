"""The JSON files that `adprior predict` and `adprior rank` read.

Errors name the file and the place in it. Only the outer object of a user's context is checked here;
the client checks the rest.
"""

from __future__ import annotations

import codecs
import json
import math
import sys
from dataclasses import dataclass
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
    if not isinstance(document.value, dict):
        raise document.wrong("an object with profile, history and as_of")
    return raw


def read_candidates(path: str) -> tuple[list[int], list[float]]:
    """Return advertiser ids and base logits from a JSON list of ``{advertiser_id, base_logit}``."""
    candidates = _parse(_read(path), path).items("a list of {advertiser_id, base_logit}")
    ids = [item["advertiser_id"].integer() for item in candidates]
    return ids, [item["base_logit"].number() for item in candidates]


def read_forecast(path: str) -> Forecast:
    """Return the forecast in a file, in the form of ``adprior predict --json``."""
    document = _parse(_read(path), path)
    advertisers = document["advertisers"].items("a list")
    missing_mass = document["missing_mass"].number()
    if not 0.0 <= missing_mass <= 1.0:
        raise document["missing_mass"].wrong("0 to 1")
    return Forecast(
        advertisers=tuple(
            Advertiser(
                advertiser_id=item["advertiser_id"].integer(),
                name=item["name"].of_type(str),
                log_prob=item["log_prob"].number(),
            )
            for item in advertisers
        ),
        exact=document["exact"].of_type(bool),
        missing_mass=missing_mass,
        bundle_id=document["bundle_id"].of_type(str),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """A value in a JSON file, and its place there."""

    path: str
    place: str
    value: Any

    def __getitem__(self, key: str) -> _Node:
        if not isinstance(self.value, dict):
            raise self.wrong(f"an object with {key}")
        if key not in self.value:
            keys = ", ".join(sorted(self.value)[:8]) or "none"
            raise self._error(f"{key} is missing; found keys: {keys}")
        return _Node(self.path, f"{self.place}.{key}".lstrip("."), self.value[key])

    def items(self, expected: str) -> list[_Node]:
        return [
            _Node(self.path, f"{self.place}[{index}]", item)
            for index, item in enumerate(self.of_type(list, expected))
        ]

    def of_type(self, kind: type, expected: str = "") -> Any:
        if type(self.value) is not kind:
            raise self.wrong(expected or _KINDS[kind])
        return self.value

    def integer(self) -> int:
        value = self.value
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise self.wrong("an integer of at most 64 bits")
        return value

    def number(self) -> float:
        value = self.value
        if type(value) not in {int, float}:
            raise self.wrong("a number")
        # 1e999 is valid JSON, and Python reads it as infinity.
        if abs(value) > 1e38 or not math.isfinite(value):
            raise self._error("expected a number within FP32")
        return float(value)

    def wrong(self, expected: str) -> InvalidInputError:
        found, kind = self.value, type(self.value)
        shown = str(found) if kind in {int, float} else _KINDS[kind]
        return self._error(f"found {shown}, expected {expected}")

    def _error(self, message: str) -> InvalidInputError:
        return InvalidInputError(f"{_shown(self.path)}: {self.place or 'top level'}: {message}")


def _read(path: str) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(f"{_shown(path)}: cannot be read: {reason}") from error
    return raw.removeprefix(codecs.BOM_UTF8)


def _parse(raw: bytes, path: str) -> _Node:
    def refuse(name: str) -> Any:
        raise InvalidInputError(f"{_shown(path)}: found {name}, which is not JSON")

    try:
        return _Node(path, "", json.loads(raw.decode("utf-8"), parse_constant=refuse))
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


def _shown(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path
