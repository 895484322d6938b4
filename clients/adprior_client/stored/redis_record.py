"""One stored forecast as bytes: layout 1, little-endian, without padding.

::

    offset  type        what
    0       uint8       layout: 1
    1       uint8       bit 0: the forecast is exact; bit 1: ids are narrow; the others are 0
    2       uint16      n, the number of advertisers, at least 1
    4       uint32      CRC-32 of the key's bytes, then of the record with these four as 0
    8       int64       as_of: microseconds since 1970, UTC
    16      float32     missing mass
    20      uint16      place of the bundle's id among the version's
    22      int64 [n]   advertiser ids, most probable first; uint32 [n] where they are narrow
    then    float32 [n] log-probabilities

The key is the user's field: a record under another user's field is corrupt. Ids are narrow if all
ids of the forecast are from 0 to 2^32 - 1, which saves a third. Names are not stored; a forecast
from a record has empty names.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LAYOUT: Final = 1
MOST_ADVERTISERS: Final = 0xFFFF
MOST_BUNDLES: Final = 0x10000
_EXACT: Final = 1
_NARROW: Final = 2
_HEADER: Final = struct.Struct("<BBHIqfH")
_LOG_PROB_BYTES: Final = 4
_AS_OF: Final = struct.Struct("<q")


class CorruptRecordError(ValueError):
    """Bytes that are not a record of this layout; the message does not quote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The content of a record.

    Attributes:
        as_of_us: Microseconds since 1970, UTC.
        exact: Whether the forecast is certified.
        missing_mass: Upper bound on the probability of all other advertisers.
        bundle: Place of the bundle's id among the version's.
        advertiser_ids: int64 [n].
        log_probs: float32 [n].
    """

    as_of_us: int
    exact: bool
    missing_mass: float
    bundle: int
    advertiser_ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]


def are_narrow(advertiser_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows of ids [m, n] are all narrow; [m]."""
    narrow: NDArray[np.bool_] = ((advertiser_ids >= 0) & (advertiser_ids < 2**32)).all(axis=1)
    return narrow


def encode_records(
    key_checksums: Sequence[int],
    *,
    as_of_us: NDArray[np.int64],
    exact: NDArray[np.bool_],
    missing_mass: NDArray[np.float32],
    bundles: NDArray[np.uint16],
    advertiser_ids: NDArray[np.int64],
    log_probs: NDArray[np.float32],
) -> list[bytes]:
    """Return a record for each of m forecasts with n advertisers; all have narrow ids, or none.

    Args:
        key_checksums: CRC-32 of each key, m of them.
        as_of_us: [m]
        exact: [m]
        missing_mass: [m]
        bundles: [m]
        advertiser_ids: [m, n], 1 <= n <= `MOST_ADVERTISERS`.
        log_probs: [m, n]
    """
    count, advertisers = advertiser_ids.shape
    is_narrow = bool(are_narrow(advertiser_ids).all())
    rows: NDArray[Any] = np.zeros(count, dtype=_row_type(advertisers, is_narrow=is_narrow))
    rows["layout"] = LAYOUT
    rows["flags"] = exact * _EXACT + is_narrow * _NARROW
    rows["count"] = advertisers
    rows["as_of_us"] = as_of_us
    rows["missing_mass"] = missing_mass
    rows["bundle"] = bundles
    rows["advertiser_ids"] = advertiser_ids
    rows["log_probs"] = log_probs
    size = rows.dtype.itemsize
    view, ends = memoryview(rows.tobytes()), range(0, (count + 1) * size, size)
    rows["checksum"] = [
        zlib.crc32(view[start : start + size], checksum)
        for start, checksum in zip(ends[:-1], key_checksums, strict=True)
    ]
    whole = rows.tobytes()
    return [whole[start : start + size] for start in ends[:-1]]


def decode_record(raw: bytes, key: bytes) -> Record:
    """Return the content of a record, every byte checked.

    Raises:
        CorruptRecordError: The layout, the length or the checksum is wrong.
    """
    if len(raw) < _HEADER.size:
        raise CorruptRecordError(f"found {len(raw)} bytes, expected {_HEADER.size} at least")
    layout, flags, count, checksum, as_of_us, missing_mass, bundle = _HEADER.unpack_from(raw)
    if layout != LAYOUT:
        raise CorruptRecordError(f"found layout {layout}, expected {LAYOUT}")
    id_type = "<u4" if flags & _NARROW else "<i8"
    ids_end = _HEADER.size + count * (4 if flags & _NARROW else 8)
    expected = ids_end + count * _LOG_PROB_BYTES
    if count == 0 or len(raw) != expected:
        raise CorruptRecordError(f"found {len(raw)} bytes, expected {expected}, with an advertiser")
    found = zlib.crc32(raw[8:], zlib.crc32(raw[:4] + b"\0\0\0\0", zlib.crc32(key)))
    if found != checksum:
        raise CorruptRecordError("its checksum is wrong")
    return Record(
        as_of_us=as_of_us,
        exact=bool(flags & _EXACT),
        missing_mass=missing_mass,
        bundle=bundle,
        advertiser_ids=np.frombuffer(raw, dtype=id_type, count=count, offset=_HEADER.size).astype(
            np.int64
        ),
        log_probs=np.frombuffer(raw, dtype="<f4", count=count, offset=ids_end),
    )


def read_as_of_us(raw: bytes) -> int:
    """Return a record's time without checking the rest; the earliest time for a short record."""
    if len(raw) < _HEADER.size:
        return -(2**63)
    as_of_us: int = _AS_OF.unpack_from(raw, 8)[0]
    return as_of_us


def _row_type(advertisers: int, *, is_narrow: bool) -> np.dtype[Any]:
    return np.dtype(
        [
            ("layout", "u1"),
            ("flags", "u1"),
            ("count", "<u2"),
            ("checksum", "<u4"),
            ("as_of_us", "<i8"),
            ("missing_mass", "<f4"),
            ("bundle", "<u2"),
            ("advertiser_ids", "<u4" if is_narrow else "<i8", (advertisers,)),
            ("log_probs", "<f4", (advertisers,)),
        ]
    )
