from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adprior_build.event_log import ColumnMap, EventColumns, ProfileColumns, read_users
from adprior_bulk.assembly import Found, read_contexts
from adprior_bulk.settings import Inputs
from adprior_bulk.staging import list_pieces, stage_piece
from adprior_runtime.context import parse_context
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError

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


def _staged(tmp_path: Path, inputs: Inputs, shards: int) -> list[Found]:
    for kind, path in inputs.sources().items():
        user = "user_id" if kind == "users" else "who"
        for piece in list_pieces(kind, path, user=user, columns=(), texts=("who",)):
            stage_piece(piece, tmp_path, shards)
    return [
        found for k in range(shards) for found in read_contexts(inputs, tmp_path, k, shards, AS_OF)
    ]


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
        raw = found[user.user_id]
        assert isinstance(raw, bytes)
        context = parse_context(raw)
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
    assert isinstance(raw, bytes)
    assert json.loads(raw)["history"][0]["advertiser"] == "Seven"


def test_a_user_of_100_000_events_keeps_the_newest_that_a_server_takes(tmp_path: Path) -> None:
    day = date(2024, 2, 1)
    rows = [_row("u1", day - timedelta(days=n // 100), f"brand {n}") for n in range(100_000)]
    ((user, raw),) = _assembled(tmp_path, rows)
    assert user == "u1"
    assert isinstance(raw, bytes)
    assert MAX_CONTEXT_BYTES - 200 < len(raw) <= MAX_CONTEXT_BYTES
    history = parse_context(raw).history
    assert len(history) > 2000
    assert history[-1].time.date() == day


def test_a_bad_row_spoils_its_own_user_only(tmp_path: Path) -> None:
    rows = [_row("u1", date(2024, 2, 1)), _row("u2", None), _row(None, date(2024, 2, 1))]
    found = dict(_assembled(tmp_path, [*rows, _row("", date(2024, 2, 1))]))
    assert isinstance(found["u1"], bytes)
    assert isinstance(found["u2"], AdpriorError)
    assert str(found["u2"]) == "events: row 0 has no user or no time"
    assert str(found[None]) == "events: 2 rows without who"


def test_given_contexts_pass_unread_and_the_last_of_a_user_counts(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": ["b", "a", "b", "c", None],
            "context": pa.array([b"1", b"\xff", b"2", None, b"3"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "users.parquet")
    found = dict(_staged(tmp_path, Inputs(users=tmp_path / "users.parquet"), 1))
    assert (found["a"], found["b"]) == (b"\xff", b"2")
    assert str(found["c"]) == "users: context is null"
    assert str(found[None]) == "users: 1 rows without user_id"
