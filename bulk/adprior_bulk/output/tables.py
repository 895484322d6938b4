"""The tables that a run writes: forecasts and dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from adprior_bulk.output.durable_files import open_durable

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
"""One row per user, sorted by ``user_id``. The last two columns reveal late events: see
`adprior_bulk.run.due_users`."""

_INTERESTS: Final = (
    pa.field("interest_ids", pa.list_(pa.int64())),
    pa.field("interest_log_probs", pa.list_(pa.float32())),
)

DEAD_LETTERS: Final = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
"""Users whose context was refused, and why. The message never quotes the context."""


def forecast_schema(*, with_interests: bool) -> pa.Schema:
    """Return the columns of `FORECASTS`, and those of interests last.

    Interests are null in forecasts that an earlier run made without them.
    """
    return pa.schema([*FORECASTS, *_INTERESTS]) if with_interests else FORECASTS


def rows_to_table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Return rows, each in the schema's order, as a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file in one step."""
    with open_durable(path) as file:
        pq.write_table(table, file, compression="zstd")
