"""JSON from a user, read value by value; each error names the source and the place in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

from adprior_runtime.errors import InvalidInputError

_KINDS: Final = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A value in a JSON document, and its place there.

    Every method that checks raises InvalidInputError. Messages repeat numbers, and no texts.

    Attributes:
        source: The document's name in messages, such as a file's path.
        place: Where the value is, such as ``candidates[3].base_logit``; empty for all of it.
        value: The value.
    """

    source: str
    place: str
    value: Any = field(repr=False)

    def __getitem__(self, key: str) -> JsonValue:
        """Return the value of a key, which must be there."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"an object with {key}")
        if key not in self.value:
            raise self._error(f"{key} is missing; keys found: {len(self.value)}")
        return JsonValue(self.source, f"{self.place}.{key}".lstrip("."), self.value[key])

    def get(self, key: str) -> JsonValue | None:
        """Return the value of a key; None if it is absent or null."""
        found = self.of_type(dict, f"an object with {key}").get(key)
        return None if found is None else self[key]

    def items(self, expected: str) -> list[JsonValue]:
        """Return the values of a list."""
        return [
            JsonValue(self.source, f"{self.place}[{index}]", item)
            for index, item in enumerate(self.of_type(list, expected))
        ]

    def of_type(self, kind: type, expected: str = "") -> Any:
        """Return the value if it has exactly this type."""
        if type(self.value) is not kind:
            raise self.wrong(expected or _KINDS[kind])
        return self.value

    def integer(self) -> int:
        """Return an integer of at most 64 bits."""
        value = self.value
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise self.wrong("an integer of at most 64 bits")
        return value

    def number(self) -> float:
        """Return a finite number within FP32."""
        value = self.value
        if type(value) not in {int, float}:
            raise self.wrong("a number")
        # 1e999 is valid JSON, and Python reads it as infinity.
        if abs(value) > 1e38 or not math.isfinite(value):
            raise self._error("expected a number within FP32")
        return float(value)

    def wrong(self, expected: str) -> InvalidInputError:
        """Return the error that something else was expected here."""
        found, kind = self.value, type(self.value)
        shown = str(found) if kind in {int, float} else _KINDS[kind]
        return self._error(f"found {shown}, expected {expected}")

    def _error(self, message: str) -> InvalidInputError:
        return InvalidInputError(f"{self.source}: {self.place or 'top level'}: {message}")


def parse_json(raw: bytes, source: str) -> JsonValue:
    """Parse a JSON document; raises InvalidInputError.

    Args:
        raw: UTF-8.
        source: Its name in messages.
    """

    def refuse(name: str) -> Any:
        raise InvalidInputError(f"{source}: found {name}, which is not JSON")

    try:
        return JsonValue(source, "", json.loads(raw.decode("utf-8"), parse_constant=refuse))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{source}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"{source}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInputError(f"{source}: JSON nested too deep or a number too long") from error
