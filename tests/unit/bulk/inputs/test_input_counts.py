from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_build.data.column_map import EventColumns
from adprior_bulk.inputs.input_counts import InputCounts, describe
from adprior_bulk.inputs.pieces import Source, list_pieces
from adprior_bulk.inputs.staging import stage_piece

_NS = 86_400 * 10**9
"""The nanoseconds of a day."""


def _counts(path: Path, table: pa.Table) -> InputCounts:
    """Stage a table as a run does; return its counts."""
    table = table.append_column("brand", pa.nulls(table.num_rows, pa.string()))
    pq.write_table(table, path / "log.parquet")
    columns = EventColumns(user="who", time="when", advertiser="brand")
    pieces = list_pieces(Source(path / "log.parquet", columns))
    for piece in pieces:
        stage_piece(piece, path, 2)
    return InputCounts.load(path / pieces[0].counts_name)


@pytest.mark.parametrize(
    "times",
    [
        [date(2024, 5, 3), date(2024, 5, 1), None, date(2024, 5, 2), date(2024, 5, 2)],
        [datetime(2024, 5, day, 23, tzinfo=UTC) for day in (3, 1, 2, 2, 2)],
        pa.array(
            [_NS * (19_843 + day) for day in (3, 1, 2, 2, 2)], pa.timestamp("ns", "Europe/Warsaw")
        ),
        ["2024-05-03T00:00:00", "2024-05-01 10:00", "2024-05-02", "2024-05-02", None],
    ],
)
def test_rows_users_dropped_rows_and_days_are_counted(tmp_path: Path, times: Any) -> None:
    table = pa.table({"who": [b"a", b"b", None, b"a", b"\xff"], "when": times})
    counts = _counts(tmp_path, table)
    assert describe("events", [counts]) == (
        "events: 5 rows, 2 users, 2024-05-01 to 2024-05-03; rows without a user, dropped: 1; "
        "rows not in UTF-8, their users become dead letters: 1"
    )


def test_several_pieces_give_an_upper_bound_of_users() -> None:
    piece = InputCounts(rows=9, users=3)
    assert describe("users", [piece, piece]) == "users: 18 rows, up to 6 users"
    assert describe("users", []) == "users: 0 rows, 0 users"


@pytest.mark.parametrize(
    "times",
    [["5/1/2024"], [None], pa.array([2**62], pa.timestamp("us"))],
)
def test_unreadable_days_are_left_out(tmp_path: Path, times: Any) -> None:
    counts = _counts(tmp_path, pa.table({"who": ["a"], "when": times}))
    assert describe("events", [counts]) == "events: 1 rows, 1 users"
