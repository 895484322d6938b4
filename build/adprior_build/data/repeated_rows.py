"""Rows of an event log that repeat another in every column, for example after a double delivery.

In a log that knows only days, two equal purchases of one day are two events. A row with an event
id, or with a time finer than a day, is one event even if it occurs twice. So repetitions of such
rows are dropped and others are kept, unless the column map decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.column_map import EventColumns
from adprior_build.data.text_columns import plain_column

_DAY_NS: Final = 24 * 60 * 60 * 10**9
_LARGEST_WHOLE: Final = 2.0**63
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_ALONE: Final = (
    r"^\s*[0-9W-]+([T ]00:?00(:?00([.,]0*)?)?\s*(Z|UTC|GMT|[+-][0-9:]+)?(\[.*\])?)?\s*$"
)
"""A date, or the first instant of a date, in any zone."""


def row_digests(table: pa.Table) -> npt.NDArray[np.uint64]:
    """Return 128-bit digests, uint64 [rows, 2], equal for rows with the same values.

    Rows of different files can be compared: the order of columns and the width of numbers do not
    matter, and a null is the same as a missing column.
    """
    totals = np.zeros((table.num_rows, 2), dtype=np.uint64)
    for name in table.column_names:
        first = 0
        for chunk in table[name].chunks:
            totals[first : first + len(chunk)] += _digests(name, chunk)
            first += len(chunk)
    return totals


def find_repeated(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Tell which rows repeat an earlier one, by their digests."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable, so the earliest comes first
    ordered = digests[order]
    repeated = np.zeros(len(digests), dtype=np.bool_)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return repeated


def choose_dropped(
    repeated: npt.NDArray[np.bool_], by_day: npt.NDArray[np.bool_], columns: EventColumns
) -> npt.NDArray[np.bool_]:
    """Tell which of the repeated rows are dropped.

    Args:
        repeated: See `find_repeated`.
        by_day: Which rows' times name only a day; see `day_alone`.
        columns: The log's map.
    """
    if columns.repeated_rows == "keep":
        return np.zeros_like(repeated)
    if columns.repeated_rows == "drop" or columns.event_id is not None:
        return repeated
    return repeated & ~by_day


def day_alone(times: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Tell which times name only a day: dates, and midnights in the column's own zone."""
    kind = times.type
    if pa.types.is_timestamp(kind):
        try:
            local = times if kind.tz is None else pc.local_timestamp(times)
        except pa.ArrowInvalid:  # this machine does not know the zone
            local = times
        ticks = np.asarray(local.cast(pa.int64()).fill_null(0).to_numpy())
        midnights: npt.NDArray[np.bool_] = ticks % (_DAY_NS // _NANOSECONDS[kind.unit]) == 0
        return midnights
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        matches = pc.fill_null(pc.match_substring_regex(times, _DAY_ALONE), True)
        return np.asarray(matches.to_numpy())
    return np.ones(len(times), dtype=np.bool_)


def note_repeated(place: str, *, dropped: int, kept: int) -> list[str]:
    """Return a line about rows that repeat another in every column, if there are any."""
    count = dropped + kept
    if not count:
        return []
    rows = "1 row repeats" if count == 1 else f"{count:,} rows repeat"
    start = f"{place}: {rows} another in every column"
    choice = "the column map's [events] repeated_rows"
    if not kept:
        return [f'{start}: dropped ({choice} = "keep" keeps them)']
    if not dropped:
        return [f'{start}: kept, as events of one day ({choice} = "drop" drops them)']
    return [f"{start}: {dropped:,} dropped, {kept:,} kept, as events of one day ({choice} decides)"]


def _digests(name: str, array: pa.Array) -> npt.NDArray[np.uint64]:
    """Return each value's digest, uint64 [values, 2]; 0 for nulls and NaN."""
    key = hashlib.blake2b(name.encode(), digest_size=16).digest()
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _mixed(key, array.fill_null(0).to_numpy(zero_copy_only=False), array.is_valid())
    if _is_time(kind):
        ticks = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).fill_null(0)
        # In one unit, so that files compare; values that overflow still differ from each other.
        factor = _NANOSECONDS[kind.unit] if pa.types.is_timestamp(kind) else 1
        return _mixed(key, ticks.to_numpy().astype(np.int64) * factor, array.is_valid())
    try:
        encoded = array.dictionary_encode()
        values, indices = encoded.dictionary, encoded.indices
    except pa.ArrowNotImplementedError:  # lists, structs
        values, indices = array, pa.array(range(len(array)), pa.int64())
    raw = [
        bytes(16) if value is None else hashlib.blake2b(value, digest_size=16, key=key).digest()
        for value in _as_bytes(values)
    ]
    found = np.frombuffer(b"".join([*raw, bytes(16)]), dtype=np.uint64).reshape(-1, 2)
    chosen: npt.NDArray[np.uint64] = found[indices.fill_null(len(raw)).to_numpy()]
    return chosen


def _mixed(key: bytes, numbers: npt.NDArray[Any], valid: pa.Array) -> npt.NDArray[np.uint64]:
    """Return digests of numbers by splitmix64's mixer; those of 5 and 5.0 are equal."""
    known = valid.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64)
        known = known & ~np.isnan(numbers)
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < _LARGEST_WHOLE)
        integers = np.where(whole, numbers, 0).astype(np.int64)
        bits = np.where(whole, integers.view(np.uint64), ~numbers.view(np.uint64))
    else:
        bits = numbers.astype(np.int64).view(np.uint64)
    seeds = np.frombuffer(key, dtype=np.uint64)
    mixed = (bits[:, None] ^ seeds) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.where(known[:, None], mixed, np.uint64(0))


def _as_bytes(values: pa.Array) -> Iterator[bytes | None]:
    """Yield values as bytes; text is not decoded, as unmapped columns need not be UTF-8."""
    (array,) = plain_column(pa.chunked_array([values])).chunks or [values]
    for value in array.view(_bare(array.type)).to_pylist():
        yield value if value is None or isinstance(value, bytes) else repr(value).encode()


def _bare(kind: pa.DataType) -> pa.DataType:
    """Return a type of the same layout whose every value Python can represent.

    Text need not be UTF-8; times may lie beyond the calendar or in a zone unknown to this machine.
    """
    return next((make(kind) for fits, make in _BARE if fits(kind)), kind)


def _bare_struct(kind: pa.DataType) -> pa.DataType:
    """Return a struct's bare type; the fields are numbered, because names may repeat."""
    fields = (kind.field(place) for place in range(kind.num_fields))
    return pa.struct([(f"{n} {each.name}", _bare(each.type)) for n, each in enumerate(fields)])


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind) and not pa.types.is_interval(kind))


_BARE: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], Any]]]] = (
    (pa.types.is_string, lambda _: pa.binary()),
    (pa.types.is_large_string, lambda _: pa.large_binary()),
    (pa.types.is_string_view, lambda _: pa.binary_view()),
    (_is_time, lambda kind: pa.int32() if kind.bit_width == 32 else pa.int64()),
    (pa.types.is_struct, _bare_struct),
    (pa.types.is_map, lambda kind: pa.map_(_bare(kind.key_type), _bare(kind.item_type))),
    (pa.types.is_list, lambda kind: pa.list_(_bare(kind.value_type))),
    (pa.types.is_large_list, lambda kind: pa.large_list(_bare(kind.value_type))),
    (pa.types.is_list_view, lambda kind: pa.list_view(_bare(kind.value_type))),
    (pa.types.is_large_list_view, lambda kind: pa.large_list_view(_bare(kind.value_type))),
    (pa.types.is_fixed_size_list, lambda kind: pa.list_(_bare(kind.value_type), kind.list_size)),
    (pa.types.is_dictionary, lambda kind: pa.dictionary(kind.index_type, _bare(kind.value_type))),
)
