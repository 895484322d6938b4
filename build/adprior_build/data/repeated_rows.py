"""Rows of an event log that repeat another in every column, for example after a double delivery.

In a log that knows only days, two equal purchases of one day are two events. A row with an event
id, or with a time finer than a day, is one event even if it occurs twice. So repetitions of such
rows are dropped and others are kept, unless the column map decides.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.column_map import EventColumns
from adprior_build.data.text_columns import plain_column

_Digests: TypeAlias = npt.NDArray[np.uint64]

_DAY_NS: Final = 24 * 60 * 60 * 10**9
_LARGEST_WHOLE: Final = 2.0**63
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_ALONE: Final = (
    r"^\s*[0-9W-]+([T ]00:?00(:?00([.,]0*)?)?\s*(Z|UTC|GMT|[+-][0-9:]+)?(\[.*\])?)?\s*$"
)
"""A date, or the first instant of a date, in any zone."""


def row_digests(table: pa.Table) -> _Digests:
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


def find_repeated(digests: _Digests) -> npt.NDArray[np.bool_]:
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


def _digests(name: str, array: pa.Array) -> _Digests:
    """Return each value's digest, uint64 [values, 2]; 0 for nulls and NaN."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    (array,) = plain_column(pa.chunked_array([array])).chunks or [array]
    key = hashlib.blake2b(name.encode(), digest_size=16).digest()
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _mixed(key, array.fill_null(0).to_numpy(zero_copy_only=False), array.is_valid())
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        ticks = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).fill_null(0)
        # One unit makes files comparable. Values that overflow still differ from each other.
        factor = _NANOSECONDS[kind.unit] if pa.types.is_timestamp(kind) else 1
        return _mixed(key, ticks.to_numpy().astype(np.int64) * factor, array.is_valid())
    if pa.types.is_struct(kind):
        totals = _mixed(key, np.zeros(len(array), dtype=np.int64), array.is_valid())
        for place, part in enumerate(array.flatten()):  # numbered, because names may repeat
            totals += _digests(f"{name}\0{place}\0{kind.field(place).name}", part)
        return totals
    if pa.types.is_map(kind):
        entries = [pa.field("key", kind.key_type, nullable=False), ("value", kind.item_type)]
        return _list_digests(name, key, array.cast(pa.list_(pa.struct(entries))))
    if hasattr(kind, "value_type"):
        return _list_digests(name, key, array)
    return _distinct_digests(key, array)


def _list_digests(name: str, key: bytes, array: pa.Array) -> _Digests:
    lengths = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)
    totals = _mixed(key, lengths, array.is_valid())
    rows = np.repeat(np.arange(len(array)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    factors = (2 * places + 1).astype(np.uint64)  # the order counts
    np.add.at(totals, rows, _digests(f"{name}\0", pc.list_flatten(array)) * factors[:, None])
    return totals


def _distinct_digests(key: bytes, array: pa.Array) -> _Digests:
    """Digest each distinct text or other value once; text is not decoded: it need not be UTF-8."""
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    elif pa.types.is_large_string(array.type):
        array = array.view(pa.large_binary())
    encoded = array.dictionary_encode()
    values = (
        value if value is None or isinstance(value, bytes) else repr(value).encode()
        for value in encoded.dictionary.to_pylist()
    )
    raw = [
        bytes(16) if value is None else hashlib.blake2b(value, digest_size=16, key=key).digest()
        for value in values
    ]
    found = np.frombuffer(b"".join([*raw, bytes(16)]), dtype=np.uint64).reshape(-1, 2)
    chosen: _Digests = found[encoded.indices.fill_null(len(raw)).to_numpy()]
    return chosen


def _mixed(key: bytes, numbers: npt.NDArray[Any], valid: pa.Array) -> _Digests:
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
