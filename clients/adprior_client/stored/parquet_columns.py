"""The columns of stored forecasts in Parquet, and the types that each may have.

Who reads them into memory and who publishes them refuse the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from adprior_runtime.errors import InvalidInputError

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
"""The one that may be missing."""


def check_column(name: str, kind: Any, place: str) -> None:
    """Refuse a column whose type can hold no such values.

    Args:
        name: Of `REQUIRED`, or `NAMES`.
        kind: The column's pyarrow type.
        place: Where it was found, for the message.

    Raises:
        InvalidInputError: It cannot.
    """
    fits, expected = _EXPECTED[name]
    if not fits(kind):
        raise InvalidInputError(f"{place}: {name}: found {kind}, expected {expected}")


def has_numbers(kind: Any) -> bool | None:
    """Return whether a column of ids holds numbers and no text; None where it holds nulls only."""
    import pyarrow as pa  # noqa: PLC0415  not among what the clients need

    return None if pa.types.is_null(kind) else bool(pa.types.is_integer(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415  not among what the clients need

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.types.is_null(kind) or any(test(kind) for test in texts)


def _is_integer(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_integer(kind) or pa.types.is_null(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_floating(kind)) or _is_integer(kind)


def _is_time(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind)) or _is_text(kind)


def _is_flag(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_boolean(kind) or pa.types.is_null(kind))


def _is_list(of: Callable[[Any], bool], *, or_null: bool = False) -> Callable[[Any], bool]:
    def test(kind: Any) -> bool:
        import pyarrow as pa  # noqa: PLC0415

        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        if pa.types.is_null(kind):
            return or_null
        return any(test(kind) for test in lists) and of(kind.value_type)

    return test


_EXPECTED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "user_id": (lambda kind: _is_text(kind) or _is_integer(kind), "text or integers"),
    "as_of": (_is_time, "a time"),
    "advertiser_ids": (_is_list(_is_integer), "lists of integers"),
    "log_probs": (_is_list(_is_number), "lists of numbers"),
    "exact": (_is_flag, "true or false"),
    "missing_mass": (_is_number, "numbers"),
    "bundle_id": (_is_text, "text"),
    NAMES: (_is_list(_is_text, or_null=True), "lists of text"),
}
