"""The columns of stored forecasts in Parquet, and the types that each may have.

Clients and ``adprior publish`` both check here, so they refuse the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from adprior_runtime.errors import InvalidInputError

_Test: TypeAlias = Callable[[Any], bool]

REQUIRED: Final = (
    "user_id",
    "as_of",
    "advertiser_ids",
    "log_probs",
    "exact",
    "missing_mass",
    "bundle_id",
)
NAMES: Final = "advertiser_names"
"""The only optional column."""


def check_column(name: str, kind: Any, place: str) -> None:
    """Refuse a column whose type cannot hold its values.

    Args:
        name: One of `REQUIRED`, or `NAMES`.
        kind: The column's pyarrow type.
        place: Where the column was found, for the message.

    Raises:
        InvalidInputError: Naming the column and its type.
    """
    fits, expected = _expected()[name]
    if not fits(kind):
        raise InvalidInputError(f"{place}: {name}: found {kind}, expected {expected}")


def has_numbers(kind: Any) -> bool | None:
    """Return whether a column of ids holds numbers, not text; None if it holds only nulls."""
    import pyarrow as pa  # noqa: PLC0415  optional

    return None if pa.types.is_null(kind) else bool(pa.types.is_integer(kind))


def _expected() -> dict[str, tuple[_Test, str]]:
    """Return a test of each column's type, and what it expects in words."""
    import pyarrow as pa  # noqa: PLC0415  optional

    types = pa.types

    def is_any(*tests: _Test) -> _Test:
        return lambda kind: types.is_null(kind) or any(test(kind) for test in tests)

    def is_list_of(is_item: _Test) -> _Test:
        is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
        return lambda kind: any(test(kind) for test in is_list) and is_item(kind.value_type)

    is_plain_text = is_any(types.is_string, types.is_large_string, types.is_string_view)

    def is_text(kind: Any) -> bool:
        return is_plain_text(kind.value_type if types.is_dictionary(kind) else kind)

    is_integer = is_any(types.is_integer)
    is_number = is_any(types.is_integer, types.is_floating)
    return {
        "user_id": (is_any(is_text, is_integer), "text or integers"),
        "as_of": (is_any(types.is_timestamp, types.is_date, is_text), "a time"),
        "advertiser_ids": (is_list_of(is_integer), "lists of integers"),
        "log_probs": (is_list_of(is_number), "lists of numbers"),
        "exact": (is_any(types.is_boolean), "true or false"),
        "missing_mass": (is_number, "numbers"),
        "bundle_id": (is_text, "text"),
        NAMES: (is_any(is_list_of(is_text)), "lists of text"),
    }
