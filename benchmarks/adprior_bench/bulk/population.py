"""Made-up populations of any size: copies of real users, under their own ids.

Their table of the day before is made up too, so that a daily run over many users can be measured
without forecasting all of them first. Its ids, sizes and digests are right, its forecasts are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_bench.data.user_contexts import context_json
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, read_users
from adprior_bulk.inputs.staging import shard_of
from adprior_bulk.output.manifest import VERSIONS, DataFile, Manifest
from adprior_bulk.output.tables import FORECASTS, rows_to_table, write_table
from adprior_bulk.run.due_users import events_digest

_EVENTS: Final = 30
_LATENESS: Final = timedelta(days=30)
_BATCH: Final = 5000
_FORECAST_K: Final = 20


def read_recent_users(
    events: Path, profiles: Path | None, columns: ColumnMap, as_of: datetime
) -> list[UserHistory]:
    """Return the log's users who have events before a time, with the last of these events."""
    found = (user.before(as_of) for user in read_users(events, profiles, columns))
    return [
        UserHistory(user_id=user.user_id, profile=user.profile, events=user.events[-_EVENTS:])
        for user in found
        if user.events
    ]


def write_population(
    directory: Path,
    models: Sequence[UserHistory],
    *,
    users: int,
    shards: int,
    active_share: float,
    as_of: datetime,
    bundle_id: str,
) -> tuple[Path, Path]:
    """Write the contexts of users, and an output directory with their table of the day before.

    Args:
        directory: The parent of both.
        models: Real users to copy.
        users: Number of users.
        shards: Shards of the table.
        active_share: Share of users with an event since then.
        as_of: Time of the run to measure.
        bundle_id: Bundle of the table's forecasts.

    Returns:
        The contexts' file and the output directory.
    """
    contexts = [context_json(user, user.events, as_of).decode() for user in models]
    rows = [_row(user, as_of - timedelta(days=1), bundle_id) for user in models]
    inputs, output = directory / f"users-{users}.parquet", directory / f"table-{users}"
    schema = pa.schema([("user_id", pa.string()), ("context", pa.string())])
    with pq.ParquetWriter(inputs, schema) as writer:
        for numbers in _batches(users):
            ids = [f"user-{number}" for number in numbers]
            copies = [contexts[number % len(models)] for number in numbers]
            writer.write_table(pa.table({"user_id": ids, "context": copies}, schema))
    every = max(1, round(1 / active_share))
    by_shard: list[list[int]] = [[] for _ in range(shards)]
    for number in range(users):
        by_shard[shard_of(f"user-{number}", shards)].append(number)
    files = []
    for shard, members in enumerate(by_shard):
        table = rows_to_table(
            (_copy(rows[n % len(models)], n, is_active=n % every == 0) for n in members), FORECASTS
        )
        path = f"{VERSIONS}/date=2000-01-01/shard={shard:04d}/made-up.forecasts"
        write_table(table.sort_by("user_id"), output / path)
        files.append(DataFile(path=path, shard=shard, rows=table.num_rows))
    (output / ".lock").touch()
    yesterday = (as_of - timedelta(days=1)).isoformat()
    Manifest(
        version="made-up",
        request="",
        date="2000-01-01",
        as_of=yesterday,
        made_at=yesterday,
        bundle_id=bundle_id,
        top_k=None,
        shards=shards,
        files=tuple(files),
    ).publish(output)
    return inputs, output


def write_active_day(
    events: Path, columns: ColumnMap, directory: Path, *, share: float, as_of: datetime, seed: int
) -> Path:
    """Write a directory with the log, and a new event at ``as_of`` for a share of its users."""
    table = pq.read_table(events)
    named = columns.events
    known = sorted({user for user in table[named.user].to_pylist() if user is not None})
    chosen = np.random.default_rng(seed).choice(
        len(known), size=round(share * len(known)), replace=False
    )
    last = table.slice(table.num_rows - 1).to_pylist()[0]
    kind = table.schema.field(named.time).type
    moment: Any = as_of.date() if pa.types.is_date(kind) else as_of
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        moment = as_of.isoformat()
    elif pa.types.is_timestamp(kind) and kind.tz is None:
        moment = as_of.replace(tzinfo=None)
    new = [last | {named.user: known[place], named.time: moment} for place in chosen]
    directory.mkdir(parents=True)
    pq.write_table(table, directory / "0.parquet")
    pq.write_table(pa.Table.from_pylist(new, table.schema), directory / "1.parquet")
    return directory


def _batches(users: int) -> Iterator[range]:
    for first in range(0, users, _BATCH):
        yield range(first, min(first + _BATCH, users))


def _row(user: UserHistory, as_of: datetime, bundle_id: str) -> tuple[Any, ...]:
    counted_from = as_of - _LATENESS
    counted = [event for event in user.events if counted_from <= event.time <= as_of]
    return (
        as_of,
        list(range(_FORECAST_K)),
        [-3.0 - place / 10 for place in range(_FORECAST_K)],
        True,
        0.5,
        bundle_id,
        user.events[-1].time,
        as_of + timedelta(days=7),
        counted_from,
        events_digest(counted),
    )


def _copy(row: tuple[Any, ...], number: int, *, is_active: bool) -> tuple[Any, ...]:
    """Return a row under another id; an active user's row dates from before the first event."""
    values = list(row)
    if is_active:
        values[6] = datetime(1970, 1, 1, tzinfo=UTC)
    return (f"user-{number}", *values)
