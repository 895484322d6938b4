"""The tables that a run writes: forecasts, and contexts that could not be forecast."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

_TIME: Final = pa.timestamp("us", "UTC")

FORECASTS: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("as_of", _TIME, nullable=False),
        pa.field("advertiser_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("log_probs", pa.list_(pa.float32()), nullable=False),
        pa.field("exact", pa.bool_(), nullable=False),
        pa.field("missing_mass", pa.float32(), nullable=False),
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("last_activity", _TIME),
        pa.field("expires_at", _TIME, nullable=False),
        pa.field("counted_from", _TIME, nullable=False),
        pa.field("events_digest", pa.int64(), nullable=False),
    ]
)
"""One row a user, by ``user_id``. The last two tell late events, see `incremental`."""

DEAD_LETTERS: Final = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
"""Whose context was refused and why, never what was in it."""


def rows_to_table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Return rows, each in the schema's order, as a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_whole(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
