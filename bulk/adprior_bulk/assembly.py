"""From a shard's staged rows to user contexts, one user at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.event_log import UserHistory, event_rows, prepare_events, profile_rows
from adprior_bulk.settings import Inputs
from adprior_bulk.staging import USER, WRONG, read_shard
from adprior_runtime.context import Event
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError, InvalidInputError

__all__ = ["context_json", "read_contexts"]

_CONTEXT: Final = "context"

Found = tuple[str | None, bytes | AdpriorError]
"""A user's id, and their context's JSON or what is wrong with their rows."""


def read_contexts(
    inputs: Inputs, directory: Path, shard: int, shards: int, as_of: datetime
) -> Iterator[Found]:
    """Yield the users of a shard, each once, by id; rows without an id first, as None.

    Args:
        inputs: What was staged.
        directory: Where.
        shard: Which shard.
        shards: Of how many.
        as_of: With events, the time the contexts are for: only events strictly before it are in
            them, and users without any are left out.
    """
    if inputs.users is not None:
        yield from _given(read_shard(directory, "users", shard, shards))
        return
    columns = inputs.columns
    if columns is None:
        raise InvalidInputError("events need a column map")
    profiles: dict[str, dict[str, str]] = {}
    if columns.profiles is not None:
        told = read_shard(directory, "profiles", shard, shards)
        if told is not None:
            told = told.drop_columns([USER, WRONG])
            profiles = {user: profile for user, profile, _ in profile_rows(told, columns.profiles)}
    table = read_shard(directory, "events", shard, shards)
    if table is None:
        return
    table = prepare_events(table, columns.events)
    for user_id, rows in _by_user(table):
        if user_id is None:
            count = rows.num_rows
            yield None, InvalidInputError(f"events: {count} rows without {columns.events.user}")
            continue
        try:
            _refuse_wrong(rows)
            events = [event for _, event, _ in event_rows(rows, columns.events, "events")]
        except AdpriorError as error:
            yield user_id, error
            continue
        events.sort(key=lambda event: event.time)
        user = UserHistory(user_id=user_id, profile=profiles.get(user_id, {}), events=events)
        user = user.before(as_of)
        if user.events:
            yield user_id, context_json(user, as_of, inputs)


def context_json(user: UserHistory, as_of: datetime, inputs: Inputs) -> bytes:
    """Return a user's context as a server takes it: the newest events that fit its size limit."""
    start = _dump({"profile": dict(user.profile), "as_of": as_of.isoformat()})
    room = MAX_CONTEXT_BYTES - len(start) - len(',"history":[]')
    newest: list[bytes] = []
    for event in reversed(user.events):
        document = _dump(_event_document(_named(event, inputs)))
        room -= len(document) + 1
        if room < 0:
            break
        newest.append(document)
    return start[:-1] + b',"history":[' + b",".join(reversed(newest)) + b"]}"


def _given(table: pa.Table | None) -> Iterator[Found]:
    """Yield contexts as they were given; of a user who comes twice, the last."""
    if table is None:
        return
    for user_id, rows in _by_user(table):
        if user_id is None:
            yield None, InvalidInputError(f"users: {rows.num_rows} rows without user_id")
            continue
        raw = rows[_CONTEXT].cast(pa.large_binary())[-1].as_py()
        yield user_id, InvalidInputError("users: context is null") if raw is None else raw


def _by_user(table: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    """Yield each user's rows, in their order; empty ids count as none."""
    table = table.combine_chunks()
    ids = pc.if_else(pc.equal(table[USER], ""), None, table[USER])
    order = pc.sort_indices(  # stable
        pa.table({USER: ids}), [(USER, "ascending")], null_placement="at_start"
    )
    codes = ids.take(order).combine_chunks().dictionary_encode()
    starts = np.flatnonzero(
        np.diff(codes.indices.fill_null(-1).to_numpy(zero_copy_only=False), prepend=-2)
    ).tolist()
    for first, stop in pairwise([*starts, len(order)]):
        yield codes[first].as_py(), table.take(order[first:stop])


def _refuse_wrong(rows: pa.Table) -> None:
    wrong = rows[WRONG].drop_null()
    if len(wrong):
        raise InvalidInputError(wrong[0].as_py())


def _named(event: Event, inputs: Inputs) -> Event:
    if inputs.names is None or event.advertiser is None:
        return event
    return replace(event, advertiser=inputs.names.get(event.advertiser, event.advertiser))


def _event_document(event: Event) -> dict[str, Any]:
    texts = {name: getattr(event, name) for name in ("advertiser", "category", "text")}
    given = {name: value for name, value in texts.items() if value is not None}
    return {"time": event.time.isoformat(), "action": event.action} | given


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
