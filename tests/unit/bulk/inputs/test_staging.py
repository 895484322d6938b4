from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_build.data.column_map import EventColumns
from adprior_bulk.inputs import pieces, staging
from adprior_bulk.inputs.pieces import Piece, Source, list_pieces
from adprior_bulk.inputs.preparation import USER, WRONG
from adprior_bulk.inputs.staging import read_shard, shard_of, stage_piece
from adprior_runtime.errors import InvalidInputError

SHARDS = 4


def _write(path: Path, users: list[str | None], groups: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"user_id": pa.array(users, pa.string()), "context": list(range(len(users)))})
    pq.write_table(table, path, row_group_size=max(1, len(users) // groups))


def _pieces(path: Path) -> list[Piece]:
    return list_pieces(Source(path))


def _stage(path: Path, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for piece in _pieces(path):
        stage_piece(piece, directory, SHARDS)


def _rows(directory: Path) -> list[tuple[int, str | None, int]]:
    found = []
    for shard in range(SHARDS):
        table = read_shard(directory, "users", shard, SHARDS)
        assert table is not None
        columns = (table[USER].to_pylist(), table["context"].to_pylist())
        found += [(shard, *row) for row in zip(*columns, strict=True)]
    return found


@pytest.mark.parametrize("piece_bytes", [1, 64 << 20])
def test_each_row_is_once_in_its_users_shard_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    for module in (pieces, staging):
        monkeypatch.setattr(module, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(staging, "_BATCH_ROWS", 7)
    users: list[str | None] = [f"user-{n % 23}" for n in range(200)]
    _write(tmp_path / "in" / "a.parquet", users[:120])
    _write(tmp_path / "in" / "deep" / "b.parquet", users[120:])
    _write(tmp_path / "in" / "_hidden" / "c.parquet", users)
    assert len(_pieces(tmp_path / "in")) == (4 if piece_bytes == 1 else 2)
    _stage(tmp_path / "in", tmp_path / "staged")
    found = _rows(tmp_path / "staged")
    assert Counter(user for _, user, _ in found) == Counter(users)
    assert all(user and shard == shard_of(user, SHARDS) for shard, user, _ in found)
    for name in set(users):
        mine = [row for _, user, row in found if user == name]
        # Rows were counted anew in the second file.
        assert mine == sorted(mine[: mine.index(max(mine)) + 1]) + sorted(
            mine[mine.index(max(mine)) + 1 :]
        )


def test_rows_without_a_user_go_to_the_first_shard(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", ["u", None, "v", None])
    _stage(tmp_path / "a.parquet", tmp_path / "staged")
    assert [shard for shard, user, _ in _rows(tmp_path / "staged") if user is None] == [0, 0]


def test_text_that_is_not_utf8_marks_only_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff"], pa.binary())
    text = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    times = [date(2024, 5, 1)] * 2
    pq.write_table(pa.table({"who": ["u", "u"], "at": times, "said": text}), tmp_path / "a.parquet")
    columns = EventColumns(user="who", time="at", advertiser="said")
    piece = list_pieces(Source(tmp_path / "a.parquet", columns))
    stage_piece(piece[0], tmp_path, 1)
    found = read_shard(tmp_path, "events", 0, 1)
    assert found is not None
    assert found["advertiser"].to_pylist() == ["good", None]
    assert found[WRONG].to_pylist() == [None, "events: said is not UTF-8"]


def test_a_staged_piece_is_not_written_again(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", ["u", "v"])
    _stage(tmp_path / "a.parquet", tmp_path / "staged")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "staged").iterdir()}
    assert before
    _stage(tmp_path / "a.parquet", tmp_path / "staged")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "staged").iterdir()} == before


def test_a_file_may_have_no_rows(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.parquet", [])
    _write(tmp_path / "in" / "b.parquet", ["u"])
    _stage(tmp_path / "in", tmp_path / "staged")
    assert [user for _, user, _ in _rows(tmp_path / "staged")] == ["u"]
    assert read_shard(tmp_path / "staged", "profiles", 0, SHARDS) is None


def test_files_that_disagree_about_a_type_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.parquet", ["u"])
    words = pa.table({"user_id": ["u"], "context": ["no number"]})
    pq.write_table(words, tmp_path / "in" / "b.parquet")
    _stage(tmp_path / "in", tmp_path / "staged")
    message = "users: files disagree about a column: context is string; expected context int64$"
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_shard(tmp_path / "staged", "users", shard_of("u", SHARDS), SHARDS)
    assert "no number" not in str(caught.value)


def test_files_may_differ_in_the_type_of_users(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, ids in (("a", ["7", "u"]), ("b", [8, 9]), ("c", [10.0, None])):
        pq.write_table(
            pa.table({"user_id": ids, "context": [0, 1]}), tmp_path / "in" / f"{name}.parquet"
        )
    _stage(tmp_path / "in", tmp_path / "staged")
    staged = [user for _, user, _ in _rows(tmp_path / "staged")]
    assert sorted(map(str, staged)) == ["10", "7", "8", "9", "None", "u"]


def test_wrong_inputs_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no parquet")
    pq.write_table(pa.table({"row": [1]}), tmp_path / "other.parquet")
    for name, message in (
        ("none", "no such file or directory"),
        ("empty", "no .parquet file in it"),
        ("text.parquet", "not Parquet"),
        ("other.parquet", "no column context, user_id; found: row"),
    ):
        with pytest.raises(InvalidInputError, match=f"{name}: {message}"):
            _pieces(tmp_path / name)


@pytest.mark.parametrize(("size", "most"), [(8, staging._BATCH_ROWS), (1 << 20, 16)])
def test_large_rows_are_read_a_few_at_a_time(tmp_path: Path, size: int, most: int) -> None:
    texts = [f"{row:0{size}}" for row in range(40)]
    table = pa.table({"user_id": texts, "context": list(range(40))})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    (piece,) = _pieces(tmp_path / "a.parquet")
    assert 1 <= staging._batch_rows(piece, pq.read_metadata(piece.path)) <= most
    _stage(tmp_path / "a.parquet", tmp_path / "staged")
    assert Counter(user for _, user, _ in _rows(tmp_path / "staged")) == Counter(texts)


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    column = pa.array(["u"])
    table = pa.Table.from_arrays(
        [column, pa.array([1]), column], names=["user_id", "context", "user_id"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        InvalidInputError, match=r"a\.parquet: the column user_id comes more than once"
    ):
        _pieces(tmp_path / "a.parquet")
