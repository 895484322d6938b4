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
from adprior_bulk.inputs.candidates import Candidate, Found, GivenUser, read_candidates
from adprior_bulk.inputs.pieces import Inputs, input_pieces
from adprior_bulk.inputs.staging import stage_piece
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError, InvalidInputError
from adprior_runtime.prompt.context import UserContext

COLUMNS = ColumnMap(
    events=EventColumns(user="who", time="at", advertiser="brand", category="kind"),
    profiles=ProfileColumns(user="who"),
)
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)


def _assembled(tmp_path: Path, rows: list[dict[str, Any]], shards: int = 3) -> list[Found]:
    schema = pa.schema(
        [("who", pa.string()), ("at", pa.date32()), ("brand", pa.string()), ("kind", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "events.parquet")
    profiles = [{"who": f"u{n}", "age": f"{n}0s", "none": None} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(profiles), tmp_path / "profiles.parquet")
    inputs = Inputs(
        events=tmp_path / "events.parquet",
        profiles=tmp_path / "profiles.parquet",
        columns=COLUMNS,
        names={"#7": "Seven"},
    )
    return _staged(tmp_path, inputs, shards)


def _staged(
    tmp_path: Path, inputs: Inputs, shards: int, counts: Counter[str] | None = None
) -> list[Found]:
    for piece in input_pieces(inputs):
        stage_piece(piece, tmp_path, shards)
    counts = Counter[str]() if counts is None else counts
    return [
        found
        for k in range(shards)
        for found in read_candidates(inputs, tmp_path, k, shards, AS_OF, counts)
    ]


def _context(found: Candidate | Exception) -> tuple[bytes, UserContext]:
    assert not isinstance(found, Exception)
    return found.context()


def _row(user: str | None, day: date | None, brand: str | None = "Acme") -> dict[str, Any]:
    return {"who": user, "at": day, "brand": brand, "kind": "PET"}


def test_contexts_are_those_that_training_reads(tmp_path: Path) -> None:
    rows = [
        _row(f"u{n % 5}", date(2024, 2, 1) + timedelta(days=n * 7 % 40), f"brand {n}")
        for n in range(60)
    ]
    found = dict(_assembled(tmp_path, rows))
    users = read_users(tmp_path / "events.parquet", tmp_path / "profiles.parquet", COLUMNS)
    assert found.keys() == {user.user_id for user in users}
    for user in users:
        context = _context(found[user.user_id])[1]
        assert context.as_of == AS_OF
        assert context.dropped_events == 0
        assert dict(context.profile) == user.profile
        assert list(context.history) == list(user.before(AS_OF).events)
        assert all(event.time < AS_OF for event in context.history)


def test_who_did_nothing_before_the_forecasts_time_is_not_there(tmp_path: Path) -> None:
    found = _assembled(tmp_path, [_row("u1", date(2024, 3, 1)), _row("u2", date(2024, 2, 29))])
    assert [user for user, _ in found] == ["u2"]


def test_ids_of_advertisers_become_names(tmp_path: Path) -> None:
    ((_, raw),) = _assembled(tmp_path, [_row("u1", date(2024, 2, 1), "#7")])
    assert json.loads(_context(raw)[0])["history"][0]["advertiser"] == "Seven"


def test_a_user_of_100_000_events_keeps_the_newest_that_a_server_takes(tmp_path: Path) -> None:
    day = date(2024, 2, 1)
    rows = [_row("u1", day - timedelta(days=n // 100), f"brand {n}") for n in range(100_000)]
    ((user, raw),) = _assembled(tmp_path, rows)
    assert user == "u1"
    text, context = _context(raw)
    assert MAX_CONTEXT_BYTES - 200 < len(text) <= MAX_CONTEXT_BYTES
    history = context.history
    assert len(history) > 2000
    assert history[-1].time.date() == day


def test_a_bad_row_spoils_its_own_user_only(tmp_path: Path) -> None:
    rows = [_row("u1", date(2024, 2, 1)), _row("u2", None), _row(None, date(2024, 2, 1))]
    found = dict(_assembled(tmp_path, [*rows, _row("", date(2024, 2, 1))]))
    assert len(_context(found["u1"])[1].history) == 1
    assert isinstance(found["u2"], AdpriorError)
    assert str(found["u2"]) == "events: a row has no time"
    assert str(found[None]) == "events: 2 rows without who"


def test_given_contexts_pass_unread_and_the_last_of_a_user_counts(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": ["b", "a", "b", "c", None],
            "context": pa.array(
                [b"1", b"\xff", b'{"as_of":"2024-02-02"}', None, b"3"], pa.binary()
            ),
        }
    )
    pq.write_table(table, tmp_path / "users.parquet")
    found = dict(_staged(tmp_path, Inputs(users=tmp_path / "users.parquet"), 1))
    assert _context(found["b"])[0] == b'{"as_of":"2024-02-02"}'
    assert str(found["a"]) == "USER_CONTEXT: not UTF-8 at byte 0"
    assert str(found["c"]) == "users: context is null"
    assert str(found[None]) == "users: 1 rows without user_id"


def test_events_and_last_activity_are_those_of_the_context(
    tmp_path: Path,
) -> None:
    rows = [_row("u1", date(2024, 1, 1) + timedelta(days=n * 5 % 80), f"b{n}") for n in range(30)]
    ((_, found),) = _assembled(tmp_path, rows)
    history = _context(found)[1].history
    assert not isinstance(found, Exception)
    assert found.last_activity == history[-1].time
    start, end = AS_OF - timedelta(days=30), AS_OF - timedelta(days=3)
    expected = [event for event in history if start <= event.time <= end]
    assert found.events_between(start, end) == expected != []
    given = GivenUser(*found.context())
    assert list(given.events_between(start, end)) == expected


def test_times_may_be_text_and_a_wrong_one_spoils_its_own_user_only(tmp_path: Path) -> None:
    table = pa.table(
        {
            "who": ["u1", "u2", "u1"],
            "at": ["2024-02-03T10:00:00+02:00", "soon", "2024-02-01"],
            "brand": ["b", "b", "a"],
            "kind": ["k"] * 3,
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    found = dict(_staged(tmp_path, Inputs(events=tmp_path / "events.parquet", columns=COLUMNS), 1))
    history = _context(found["u1"])[1].history
    assert [event.advertiser for event in history] == ["a", "b"]
    assert history[-1].time == datetime(2024, 2, 3, 8, tzinfo=UTC)
    assert "expected" not in str(found["u2"])
    assert str(found["u2"]).startswith("events: time: found a string that is not an ISO 8601")


def test_a_context_that_is_no_text_is_told_of(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a"], "context": [{"as_of": "2024-02-02"}]})
    pq.write_table(table, tmp_path / "users.parquet")
    with pytest.raises(InvalidInputError, match="users: context is of type struct"):
        _staged(tmp_path, Inputs(users=tmp_path / "users.parquet"), 1)


def _write_days(directory: Path, days: list[dict[str, Any]], name: str) -> Path:
    """Write a directory of files, each a day's columns."""
    path = directory / name
    path.mkdir()
    for place, columns in enumerate(days):
        pq.write_table(pa.table(columns), path / f"{place}.parquet")
    return path


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_files_may_differ_in_types_whatever_their_order(tmp_path: Path, order: list[int]) -> None:
    day = date(2024, 2, 1)
    events = [
        {"who": ["1"], "at": [day], "brand": [7], "kind": pa.nulls(1)},
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
    inputs = Inputs(
        events=_write_days(tmp_path, [events[place] for place in order], "events"),
        profiles=_write_days(tmp_path, [profiles[place] for place in order], "profiles"),
        columns=COLUMNS,
        names={"#7": "Seven"},
    )
    ((user, found),) = _staged(tmp_path, inputs, 1)
    context = _context(found)[1]
    assert (user, dict(context.profile)) == ("1", {"age": "34"})
    told = [(e.time.day, e.advertiser, e.category) for e in context.history]
    assert told == [(1, "Seven", None), (2, "Seven", "x"), (3, None, "5")]


@pytest.mark.parametrize("repeated_rows", [None, "drop", "keep"])
@pytest.mark.parametrize("event_id", [None, "id"])
@pytest.mark.parametrize("hour", [0, 12])
def test_repeated_rows_are_dropped_as_in_training(
    tmp_path: Path, hour: int, event_id: str | None, repeated_rows: str | None
) -> None:
    times = [datetime(2024, 2, day, hour, tzinfo=UTC) for day in (1, 1, 1, 2, 1)]
    table = pa.table(
        {
            "who": ["u1"] * 5,
            "at": times,
            "brand": ["b"] * 5,
            "kind": ["k"] * 5,
            "id": [1, 1, 1, 1, 2],
        }
    )
    columns = replace(
        COLUMNS, events=replace(COLUMNS.events, event_id=event_id, repeated_rows=repeated_rows)
    )
    pq.write_table(table, tmp_path / "events.parquet")
    (tmp_path / "days").mkdir()
    for place in range(5):  # a delivery repeated is one in another file
        pq.write_table(table.slice(place, 1), tmp_path / "days" / f"{place}.parquet")
    said: list[str] = []
    (trained,) = read_users(tmp_path / "events.parquet", None, columns, say=said.append)
    counts = Counter[str]()
    inputs = Inputs(events=tmp_path / "days", columns=columns)
    ((_, found),) = _staged(tmp_path, inputs, 2, counts)
    assert list(_context(found)[1].history) == list(trained.events)
    assert len(said) == 1
    dropped = 5 - len(trained.events)
    assert (counts["repeated_dropped"], counts["repeated_kept"]) == (dropped, 2 - dropped)


def test_repeated_profiles_and_users_without_one_are_counted(tmp_path: Path) -> None:
    rows = [{"who": f"u{n}", "at": date(2024, 2, 1), "brand": "b", "kind": "k"} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    profiles = {"who": ["u1", "u1", None], "age": [1, 2, 3]}
    pq.write_table(pa.table(profiles), tmp_path / "profiles.parquet")
    inputs = Inputs(
        events=tmp_path / "events.parquet", profiles=tmp_path / "profiles.parquet", columns=COLUMNS
    )
    counts = Counter[str]()
    found = dict(_staged(tmp_path, inputs, 2, counts))
    assert dict(_context(found["u1"])[1].profile) == {"age": "2"}
    assert counts == {
        "profiles_repeated": 1,
        "profiles_nameless": 1,
        "active_users": 4,
        "without_profile": 3,
        "repeated_dropped": 0,
        "repeated_kept": 0,
    }


def test_a_profile_that_is_no_text_spoils_its_own_user_only(tmp_path: Path) -> None:
    rows = [{"who": f"u{n}", "at": date(2024, 2, 1), "brand": "b", "kind": "k"} for n in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    profiles = {"who": ["u0", "u1"], "city": pa.array([b"Caf\xe9", b"x"], pa.binary())}
    pq.write_table(pa.table(profiles), tmp_path / "profiles.parquet")
    inputs = Inputs(
        events=tmp_path / "events.parquet", profiles=tmp_path / "profiles.parquet", columns=COLUMNS
    )
    found = dict(_staged(tmp_path, inputs, 1))
    assert str(found["u0"]) == "profiles: city is not UTF-8"
    assert dict(_context(found["u1"])[1].profile) == {"city": "x"}


def test_a_column_of_profiles_that_nobody_chose_spoils_nothing(tmp_path: Path) -> None:
    row = {"who": "u0", "at": date(2024, 2, 1), "brand": "b", "kind": "k"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    profiles = {"who": ["u0"], "age": [34], "shape": pa.array([b"\x00\xff"], pa.binary())}
    pq.write_table(pa.table(profiles), tmp_path / "profiles.parquet")
    inputs = Inputs(
        events=tmp_path / "events.parquet",
        profiles=tmp_path / "profiles.parquet",
        columns=replace(COLUMNS, profiles=ProfileColumns(user="who", keys=("age", "age"))),
    )
    found = dict(_staged(tmp_path, inputs, 1))
    assert dict(_context(found["u0"])[1].profile) == {"age": "34"}


def test_a_time_beyond_the_calendar_spoils_its_own_user_only(tmp_path: Path) -> None:
    times = pa.array([0, 10**13], pa.timestamp("s"))
    table = {"who": ["u1", "u2"], "at": times, "brand": ["b"] * 2, "kind": ["k"] * 2}
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    inputs = Inputs(events=tmp_path / "events.parquet", columns=COLUMNS)
    found = dict(_staged(tmp_path, inputs, 1))
    assert len(_context(found["u1"])[1].history) == 1
    assert str(found["u2"]) == "events: a time beyond the calendar"


def test_contexts_may_be_of_any_storage_of_text_and_users_numbers(tmp_path: Path) -> None:
    raw = '{"as_of":"2024-02-02"}'
    for place, (ids, kind) in enumerate(
        [([1.0], pa.string_view()), ([2], pa.dictionary(pa.int8(), pa.string()))]
    ):
        table = pa.table({"user_id": ids, "context": pa.array([raw]).cast(kind)})
        (tmp_path / "users").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "users" / f"{place}.parquet")
    found = dict(_staged(tmp_path, Inputs(users=tmp_path / "users"), 1))
    assert [_context(found[user])[0].decode() for user in ("1", "2")] == [raw, raw]
