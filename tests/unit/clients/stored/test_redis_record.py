from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client.stored.redis_record import (
    CorruptRecordError,
    decode_record,
    encode_records,
    read_as_of_us,
)

I64 = st.integers(-(2**63), 2**63 - 1)
U32 = st.integers(0, 2**32 - 1)
LOG_PROBS = st.floats(-100, 0, width=32)
ADVERTISERS = st.one_of(
    st.lists(st.tuples(I64, LOG_PROBS), min_size=1, max_size=40),
    st.lists(st.tuples(U32, LOG_PROBS), min_size=1, max_size=40),
)


def _encode(key: bytes, advertisers: list[tuple[int, float]], as_of_us: int = 5) -> bytes:
    return encode_records(
        [zlib.crc32(key)],
        as_of_us=np.array([as_of_us]),
        exact=np.array([True]),
        missing_mass=np.array([0.25], dtype=np.float32),
        bundles=np.array([3], dtype=np.uint16),
        advertiser_ids=np.array([[item for item, _ in advertisers]], dtype=np.int64),
        log_probs=np.array([[value for _, value in advertisers]], dtype=np.float32),
    )[0]


@given(key=st.binary(max_size=40), advertisers=ADVERTISERS, as_of_us=I64)
def test_a_record_round_trips(
    key: bytes, advertisers: list[tuple[int, float]], as_of_us: int
) -> None:
    raw = _encode(key, advertisers, as_of_us)
    record = decode_record(raw, key)
    assert list(zip(record.advertiser_ids.tolist(), record.log_probs.tolist(), strict=True)) == (
        advertisers
    )
    assert (record.as_of_us, record.exact, record.missing_mass, record.bundle) == (
        as_of_us,
        True,
        0.25,
        3,
    )
    assert read_as_of_us(raw) == as_of_us


def test_the_layout_is_as_documented() -> None:
    body = bytes.fromhex("0101 0200 00000000 0500000000000000 0000803e 0300".replace(" ", ""))
    body += (7).to_bytes(8, "little") + (-1).to_bytes(8, "little", signed=True)
    body += bytes.fromhex("000000bf 0000c0bf".replace(" ", ""))
    checksum = zlib.crc32(b"skey" + body)
    expected = body[:4] + checksum.to_bytes(4, "little") + body[8:]
    assert _encode(b"skey", [(7, -0.5), (-1, -1.5)]) == expected


def test_narrow_ids_need_half_the_bytes() -> None:
    body = bytes.fromhex("0103 0200 00000000 0500000000000000 0000803e 0300".replace(" ", ""))
    body += (7).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little")
    body += bytes.fromhex("000000bf 0000c0bf".replace(" ", ""))
    checksum = zlib.crc32(b"skey" + body)
    expected = body[:4] + checksum.to_bytes(4, "little") + body[8:]
    assert _encode(b"skey", [(7, -0.5), (2**32 - 1, -1.5)]) == expected
    assert len(_encode(b"skey", [(7, -0.5), (2**32, -1.5)])) == len(expected) + 8


@given(place=st.integers(0, 37), change=st.integers(1, 255))
def test_a_changed_byte_is_detected(place: int, change: int) -> None:
    raw = bytearray(_encode(b"skey", [(7, -0.5), (8, -1.5)]))
    raw[place] ^= change
    with pytest.raises(CorruptRecordError):
        decode_record(bytes(raw), b"skey")


@given(raw=st.binary(max_size=200))
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        decode_record(raw, b"skey")
    read_as_of_us(raw)


def test_a_foreign_or_truncated_record_is_refused() -> None:
    raw = _encode(b"skey", [(7, -0.5)])
    with pytest.raises(CorruptRecordError, match="checksum"):
        decode_record(raw, b"sother")
    for cut in range(len(raw)):
        with pytest.raises(CorruptRecordError):
            decode_record(raw[:cut], b"skey")
