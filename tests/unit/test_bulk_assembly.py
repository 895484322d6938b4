from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_build.event_log import ColumnMap, EventColumns, ProfileColumns, read_users
from adprior_bulk.candidates import Candidate, Found, read_candidates
from adprior_bulk.incremental import events_digest
from adprior_bulk.settings import Inputs
from adprior_bulk.staging import list_pieces, stage_piece
from adprior_runtime.context import UserContext
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError, InvalidInputError

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
        found
        for k in range(shards)
        for found in read_candidates(inputs, tmp_path, k, shards, AS_OF)
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


def test_an_assembled_users_digest_and_last_activity_are_those_of_the_context(
    tmp_path: Path,
) -> None:
    rows = [_row("u1", date(2024, 1, 1) + timedelta(days=n * 5 % 80), f"b{n}") for n in range(30)]
    ((_, found),) = _assembled(tmp_path, rows)
    history = _context(found)[1].history
    assert not isinstance(found, Exception)
    assert found.last_activity == history[-1].time
    start, end = AS_OF - timedelta(days=30), AS_OF - timedelta(days=3)
    assert found.digest(start, end) == events_digest(history, start, end) != 0


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
