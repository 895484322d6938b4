from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.data.event_log import read_users
from adprior_bulk.inputs.pieces import Inputs, input_pieces
from adprior_bulk.inputs.shard_users import GivenUser, ShardUser, read_shard_users
from adprior_bulk.inputs.staging import stage_piece
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError, InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import UserContext, parse_context

COLUMNS = ColumnMap(
    events=EventColumns(user="who", time="at", advertiser="brand", category="kind"),
    profiles=ProfileColumns(user="who"),
)
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
DAY = date(2024, 2, 1)
EVENTS = pa.schema(
    [("who", pa.string()), ("at", pa.date32()), ("brand", pa.string()), ("kind", pa.string())]
)


def _read(
    directory: Path,
    columns: ColumnMap = COLUMNS,
    shards: int = 1,
    counts: Counter[str] | None = None,
    **tables: Any,
) -> dict[str | None, ShardUser | Exception]:
    """Write tables as a run's inputs, a list as a directory of files; return the users by id."""
    for kind, found in tables.items():
        (directory / kind).mkdir(exist_ok=True)
        for number, table in enumerate(found if isinstance(found, list) else [found]):
            written = table if isinstance(table, pa.Table) else pa.table(table)
            pq.write_table(written, directory / kind / f"{number}.parquet")
    paths = {kind: directory / kind for kind in tables}
    inputs = Inputs(**paths, columns=columns, names={"#7": "Seven"})
    for piece in input_pieces(inputs):
        stage_piece(piece, directory, shards)
    counts = Counter() if counts is None else counts
    return {
        user: found
        for shard in range(shards)
        for user, found in read_shard_users(inputs, directory, shard, shards, AS_OF, counts)
    }


def _context(found: ShardUser | Exception) -> tuple[bytes, UserContext]:
    assert not isinstance(found, Exception)
    return found.context()


def _events(*rows: tuple[str | None, date | None, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"who": who, "at": at, "brand": brand, "kind": "PET"} for who, at, brand in rows], EVENTS
    )


def test_contexts_are_those_that_training_reads(tmp_path: Path) -> None:
    events = _events(
        *((f"u{n % 5}", DAY + timedelta(days=n * 7 % 40), f"brand {n}") for n in range(60))
    )
    profiles = pa.table({"who": [f"u{n}" for n in range(9)], "age": [f"{n}0s" for n in range(9)]})
    found = _read(tmp_path, shards=3, events=events, profiles=profiles)
    log, people = (tmp_path / kind / "0.parquet" for kind in ("events", "profiles"))
    users = read_users(log, people, COLUMNS)
    assert found.keys() == {user.user_id for user in users}
    for user in users:
        context = _context(found[user.user_id])[1]
        assert context.as_of == AS_OF
        assert context.dropped_events == 0
        assert dict(context.profile) == user.profile
        assert list(context.history) == list(user.before(AS_OF).events)
        assert all(event.time < AS_OF for event in context.history)


def test_times_that_count_since_1970_are_read_as_in_training(tmp_path: Path) -> None:
    seconds = int(AS_OF.timestamp())
    events = _events(("u1", None, "Acme"), ("u1", None, "Kite"))
    events = events.set_column(1, "at", pa.array([1000 * (seconds - 60), 1000 * seconds]))
    columns = replace(COLUMNS, events=replace(COLUMNS.events, time_unit="ms"))
    (user,) = _read(tmp_path, columns, events=events).values()
    (event,) = _context(user)[1].history
    assert (event.advertiser, event.time) == ("Acme", AS_OF - timedelta(minutes=1))


def test_users_without_an_event_before_the_run_are_left_out(tmp_path: Path) -> None:
    events = _events(("u1", date(2024, 3, 1), "Acme"), ("u2", date(2024, 2, 29), "Acme"))
    assert _read(tmp_path, events=events).keys() == {"u2"}


def test_ids_of_advertisers_become_names(tmp_path: Path) -> None:
    found = _read(tmp_path, events=_events(("u1", DAY, "#7")))
    assert json.loads(_context(found["u1"])[0])["history"][0]["advertiser"] == "Seven"


def test_a_context_keeps_the_newest_events_that_a_server_accepts(tmp_path: Path) -> None:
    rows = (("u1", DAY - timedelta(days=n // 100), f"brand {n}") for n in range(100_000))
    found = _read(tmp_path, events=_events(*rows))
    text, context = _context(found["u1"])
    assert MAX_CONTEXT_BYTES - 200 < len(text) <= MAX_CONTEXT_BYTES
    assert context == parse_context(text)
    assert len(context.history) > 2000
    assert context.history[-1].time.date() == DAY


def test_a_profile_beyond_the_size_limit_is_refused(tmp_path: Path) -> None:
    profiles = {"who": ["u1"], "city": ["x" * MAX_CONTEXT_BYTES]}
    found = _read(tmp_path, events=_events(("u1", DAY, "b")), profiles=profiles)
    with pytest.raises(InvalidRequestError, match="at most 262144 are taken"):
        _context(found["u1"])


def test_events_and_last_activity_are_those_of_the_context(tmp_path: Path) -> None:
    start = date(2024, 1, 1)
    rows = (("u1", start + timedelta(days=n * 5 % 80), f"b{n}") for n in range(30))
    found = _read(tmp_path, events=_events(*rows))["u1"]
    assert not isinstance(found, Exception)
    history = _context(found)[1].history
    assert found.last_activity == history[-1].time
    period = AS_OF - timedelta(days=30), AS_OF - timedelta(days=3)
    expected = [event for event in history if period[0] <= event.time <= period[1]]
    assert found.events_between(*period) == expected != []
    assert list(GivenUser(*found.context()).events_between(*period)) == expected


def test_a_malformed_row_refuses_only_its_user(tmp_path: Path) -> None:
    events = _events(("u1", DAY, "a"), ("u2", None, "a"), (None, DAY, "a"), ("", DAY, "a"))
    found = _read(tmp_path, events=events)
    assert len(_context(found["u1"])[1].history) == 1
    assert isinstance(found["u2"], AdpriorError)
    assert str(found["u2"]) == "events: a row has no time"
    assert str(found[None]) == "events: 2 rows without who"


def test_a_malformed_time_refuses_only_its_user(tmp_path: Path) -> None:
    times = ["2024-02-03T10:00:00+02:00", "soon", "2024-02-01"]
    table = {"who": ["u1", "u2", "u1"], "at": times, "brand": ["b", "b", "a"], "kind": ["k"] * 3}
    found = _read(tmp_path, events=table)
    history = _context(found["u1"])[1].history
    assert [event.advertiser for event in history] == ["a", "b"]
    assert history[-1].time == datetime(2024, 2, 3, 8, tzinfo=UTC)
    assert "expected" not in str(found["u2"])
    assert str(found["u2"]).startswith("events: time: found a string that is not an ISO 8601")


def test_a_time_beyond_the_calendar_refuses_only_its_user(tmp_path: Path) -> None:
    times = pa.array([0, 10**13], pa.timestamp("s"))
    table = {"who": ["u1", "u2"], "at": times, "brand": ["b"] * 2, "kind": ["k"] * 2}
    found = _read(tmp_path, events=table)
    assert len(_context(found["u1"])[1].history) == 1
    assert str(found["u2"]) == "events: a time beyond the calendar"


def test_a_profile_that_is_not_text_refuses_only_its_user(tmp_path: Path) -> None:
    events = _events(("u0", DAY, "b"), ("u1", DAY, "b"))
    profiles = {"who": ["u0", "u1"], "city": pa.array([b"Caf\xe9", b"x"], pa.binary())}
    found = _read(tmp_path, events=events, profiles=profiles)
    assert str(found["u0"]) == "profiles: city is not UTF-8"
    assert dict(_context(found["u1"])[1].profile) == {"city": "x"}


def test_columns_of_profiles_that_are_not_mapped_may_be_malformed(tmp_path: Path) -> None:
    profiles = {"who": ["u0"], "age": [34], "shape": pa.array([b"\x00\xff"], pa.binary())}
    chosen = replace(COLUMNS, profiles=ProfileColumns(user="who", keys=("age", "age")))
    found = _read(tmp_path, chosen, events=_events(("u0", DAY, "b")), profiles=profiles)
    assert dict(_context(found["u0"])[1].profile) == {"age": "34"}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_files_may_differ_in_types_in_any_order(tmp_path: Path, order: list[int]) -> None:
    events: list[dict[str, Any]] = [
        {"who": ["1"], "at": [DAY], "brand": [7], "kind": pa.nulls(1)},
        {
            "who": [1.0],
            "at": pa.array([datetime(2024, 2, 2, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            "brand": [7.0],
            "kind": pa.array(["x"]).dictionary_encode(),
        },
        {
            "who": pa.array([1], pa.int8()),
            "at": pa.array([datetime(2024, 2, 3, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
            "brand": pa.nulls(1),
            "kind": [5.0],
        },
    ]
    profiles: list[dict[str, Any]] = [
        {"who": pa.nulls(1), "age": [30]},
        {"who": [1.0], "age": [34.0]},
        {"who": pa.array(["2"], pa.string_view()), "city": ["x"], "age": ["40"]},
    ]
    found = _read(
        tmp_path,
        events=[events[place] for place in order],
        profiles=[profiles[place] for place in order],
    )
    assert found.keys() == {"1"}
    context = _context(found["1"])[1]
    assert dict(context.profile) == {"age": "34"}
    history = [(e.time.day, e.advertiser, e.category) for e in context.history]
    assert history == [(1, "Seven", None), (2, "Seven", "x"), (3, None, "5")]


@pytest.mark.parametrize("repeated_rows", [None, "drop", "keep"])
@pytest.mark.parametrize("event_id", [None, "id"])
@pytest.mark.parametrize("hour", [0, 12])
def test_repeated_rows_are_dropped_as_in_training(
    tmp_path: Path, hour: int, event_id: str | None, repeated_rows: str | None
) -> None:
    times = [datetime(2024, 2, day, hour, tzinfo=UTC) for day in (1, 1, 1, 2, 1)]
    same = {"who": ["u1"] * 5, "brand": ["b"] * 5, "kind": ["k"] * 5}
    table = pa.table({**same, "at": times, "id": [1, 1, 1, 1, 2]})
    events = replace(COLUMNS.events, event_id=event_id, repeated_rows=repeated_rows)
    columns = ColumnMap(events=events)
    pq.write_table(table, tmp_path / "log.parquet")
    said: list[str] = []
    (trained,) = read_users(tmp_path / "log.parquet", None, columns, say=said.append)
    assert len(said) == 1
    counts = Counter[str]()
    files: list[Any] = [table.slice(place, 1) for place in range(5)]
    found = _read(tmp_path, columns, shards=2, counts=counts, events=files)
    assert list(_context(found["u1"])[1].history) == list(trained.events)
    dropped = 5 - len(trained.events)
    assert (counts["repeated_dropped"], counts["repeated_kept"]) == (dropped, 2 - dropped)


def test_repeated_profiles_and_users_without_a_profile_are_counted(tmp_path: Path) -> None:
    events = _events(*((f"u{n}", DAY, "b") for n in range(4)))
    profiles = {"who": ["u1", "u1", None], "age": [1, 2, 3]}
    counts = Counter[str]()
    found = _read(tmp_path, shards=2, counts=counts, events=events, profiles=profiles)
    assert dict(_context(found["u1"])[1].profile) == {"age": "2"}
    assert counts == {
        "profiles_repeated": 1,
        "profiles_nameless": 1,
        "active_users": 4,
        "without_profile": 3,
        "repeated_dropped": 0,
        "repeated_kept": 0,
    }


def test_the_last_given_context_of_a_user_is_used(tmp_path: Path) -> None:
    raw = [b"1", b"\xff", b'{"as_of":"2024-02-02"}', None, b"3"]
    table = {"user_id": ["b", "a", "b", "c", None], "context": pa.array(raw, pa.binary())}
    found = _read(tmp_path, users=table)
    assert _context(found["b"])[0] == b'{"as_of":"2024-02-02"}'
    assert str(found["a"]) == "USER_CONTEXT: not UTF-8 at byte 0"
    assert str(found["c"]) == "users: context is null"
    assert str(found[None]) == "users: 1 rows without user_id"


def test_contexts_that_are_not_text_are_refused(tmp_path: Path) -> None:
    table = {"user_id": ["a"], "context": [{"as_of": "2024-02-02"}]}
    with pytest.raises(InvalidInputError, match="users: context is of type struct"):
        _read(tmp_path, users=table)


def test_contexts_may_have_any_text_type_and_users_any_number_type(tmp_path: Path) -> None:
    raw = '{"as_of":"2024-02-02"}'
    files: list[Any] = [
        {"user_id": [1.0], "context": pa.array([raw]).cast(pa.string_view())},
        {"user_id": [2], "context": pa.array([raw]).dictionary_encode()},
    ]
    found = _read(tmp_path, users=files)
    assert [_context(found[user])[0].decode() for user in ("1", "2")] == [raw, raw]
