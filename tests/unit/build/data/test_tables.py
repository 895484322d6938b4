from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_build.data.tables import read_table
from adprior_runtime.errors import InvalidInputError

NOT_UTF_8 = b"Caf\xe9"


def write(path: Path, columns: dict[str, Any] | pa.Table) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


def write_csv(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def invalid_strings() -> pa.StringArray:
    """Return a string column whose second value is not UTF-8."""
    return pa.array([b"Acme", NOT_UTF_8], pa.binary()).view(pa.string())


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_table(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_csv_and_parquet_give_the_same_table(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "name": ["Acme", "麦穗"]}
    from_parquet = read_table(write(tmp_path / "t.parquet", columns), ["id"], ["name"])
    csv = write_csv(tmp_path / "t.csv", "id,name\n1,Acme\n2,麦穗\n".encode())
    assert read_table(csv, ["id"], ["name"]).to_pydict() == columns
    assert from_parquet.to_pydict() == columns


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n1\n\x00\xff"])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert ("no such file" in message) == (content is None)


def test_a_directory_and_another_suffix_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    assert "is a directory, expected a file named" in refusal(tmp_path / "t.csv")
    message = refusal(write_csv(tmp_path / "t.json", b"{}"))
    assert "expected a file named .parquet or .csv" in message


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "t.parquet", {"x": [1], "y": [2]}),
        write_csv(tmp_path / "t.csv", b"x,y\n1,2\n"),
    ):
        message = refusal(path, required=["user", "x", "time"])
        assert message.endswith("no column user, time; found: x, y")


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", b"name,name\nAcme,Kite\n")
    assert "name" in refusal(path, required=["name"])


def test_headers_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    refusal(write_csv(tmp_path / "t.csv", NOT_UTF_8 + b",name\n1,Acme\n"), required=["name"])


def test_text_of_a_csv_is_not_converted(tmp_path: Path) -> None:
    values = ["365", "007", "NA", "true", "1e3", "2024-05-31", "null", "", "Łódź"]
    content = "name\n" + "".join(f'"{value}"\n' for value in values)
    path = write_csv(tmp_path / "t.csv", content.encode())
    assert read_table(path, text=["name"])["name"].to_pylist() == values


def test_other_columns_of_a_csv_get_the_type_of_their_values(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path / "t.csv", b"id,name\n007,007\n"), text=["name"])
    assert table.to_pydict() == {"id": [7], "name": ["007"]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"id\n7\n", {"id": [7]}),
        (b"id,name\n", {"id": [], "name": []}),
        (b"\xef\xbb\xbfid,name\n7,Acme\n", {"id": [7], "name": ["Acme"]}),
    ],
    ids=["no text column", "no rows", "byte order mark"],
)
def test_unusual_csvs_are_read(tmp_path: Path, content: bytes, expected: dict[str, Any]) -> None:
    path = write_csv(tmp_path / "t.csv", content)
    assert read_table(path, ["id"], ["name"]).to_pydict() == expected


def test_text_that_is_not_utf_8_is_refused_with_its_row(tmp_path: Path) -> None:
    for path in (
        write_csv(tmp_path / "t.csv", b"id,name\n1,Acme\n2," + NOT_UTF_8 + b"\n"),
        write(tmp_path / "binary.parquet", {"name": [b"Acme", NOT_UTF_8]}),
        write(tmp_path / "string.parquet", {"name": invalid_strings()}),
    ):
        message = refusal(path, text=["name"]).replace(" (from 0)", "").partition(";")[0]
        assert message == f"{path}: row 1 has a name that is not UTF-8"


def test_rows_are_counted_through_the_whole_file(tmp_path: Path) -> None:
    names = pa.chunked_array([[b"Acme"] * 5, [None, b"Kite", NOT_UTF_8]])
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"name": names}), path, row_group_size=3)
    assert "row 7 " in refusal(path, text=["name"])


def test_other_columns_that_are_not_utf_8_do_not_matter(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", b"name,note\nAcme," + NOT_UTF_8 + b"\n")
    assert read_table(path, text=["name"])["name"].to_pylist() == ["Acme"]


def test_integers_of_parquet_stay_integers(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"name": pa.array([7, None], pa.int32())})
    table = read_table(path, ["name"], ["name"])
    assert table["name"].type == pa.int32()
    assert table["name"].to_pylist() == [7, None]


def test_columns_keep_their_order(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", b"c,a,b\nx,y,z\n")
    assert read_table(path, ["a"], ["b", "c"]).column_names == ["c", "a", "b"]


FIELDS = st.text(st.sampled_from("ab,\"\n\r\t;é '0"), max_size=6) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6
)
LINES = st.lists(st.lists(FIELDS, min_size=3, max_size=3), max_size=12)


@given(
    LINES,
    st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
)
@settings(max_examples=50)
def test_a_csv_is_read_as_pythons_own_module_reads_it(
    rows: list[list[str]], form: tuple[str, Literal[0, 1]]
) -> None:
    line_end, quoting = form
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=line_end, quoting=quoting)
            writer.writerows([["a", "b", "c"], *rows])
        with path.open(encoding="utf-8", newline="") as file:
            expected = list(csv.reader(file))[1:]
        assert expected == rows
        table = read_table(path, ["a", "b", "c"], all_text=True)
    found = [list(row) for row in zip(*table.to_pydict().values(), strict=True)]
    assert found == expected


@pytest.mark.parametrize("all_text", [False, True])
def test_values_may_contain_line_ends_in_large_files(tmp_path: Path, *, all_text: bool) -> None:
    rows = [f'"a title\nof two lines, {row}",{row}' for row in range(60_000)]
    path = write_csv(tmp_path / "t.csv", "\n".join(["title,row", *rows]).encode())
    assert path.stat().st_size > 1 << 20
    table = read_table(path, ["title", "row"], ["title"], all_text=all_text)
    assert table["title"].to_pylist() == [f"a title\nof two lines, {row}" for row in range(60_000)]
    assert table["row"].to_pylist() == [str(row) if all_text else row for row in range(60_000)]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_other_separators_are_found_in_the_header(
    tmp_path: Path, separator: str, mark: bytes
) -> None:
    rows = ['"user, id"', "name"], ["7", '"a;b\t|,c"'], ["8", "Acme"]
    content = mark + "\n".join(separator.join(row) for row in rows).encode()
    table = read_table(write_csv(tmp_path / "t.csv", content), ["user, id", "name"], all_text=True)
    assert table.to_pydict() == {"user, id": ["7", "8"], "name": ["a;b\t|,c", "Acme"]}


def test_a_header_with_commas_may_hold_semicolons(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", b"a;b,c\n1,2\n")
    assert read_table(path).to_pydict() == {"a;b": [1], "c": [2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "found UTF-16, expected UTF-8; convert the file: iconv -f"),
        (b"a,\xe9\n1,2\n", "the header is not UTF-8 at byte 2; convert the file, if it is Latin-1"),
        (b"a,b\n1,Caf\xe9\n", "row 0 (from 0) has a b that is not UTF-8; convert the file, if"),
        (b"a,b\n1,2\nx\n", "row 1 (from 0) has 1 values, expected 2 as in the header; a value"),
        (b"a,b\n1,secret,3\n", "row 0 (from 0) has 3 values, expected 2 as in the header;"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_without_its_values(
    tmp_path: Path, content: bytes, message: str
) -> None:
    found = refusal(write_csv(tmp_path / "t.csv", content), required=["a", "b"], all_text=True)
    assert f"t.csv: {message}" in found
    assert "secret" not in found


@pytest.mark.parametrize("all_text", [False, True])
def test_a_value_may_be_larger_than_a_block(tmp_path: Path, *, all_text: bool) -> None:
    value = "a line\n" * 500_000
    path = write_csv(tmp_path / "t.csv", f'id,text\n1,"{value}"\n2,short\n'.encode())
    table = read_table(path, ["id"], ["text"], all_text=all_text)
    assert table["text"].to_pylist() == [value, "short"]


def test_all_columns_of_a_csv_can_be_read_as_text(tmp_path: Path) -> None:
    content = b"id,price,note\n02139,1.50,Caf\xe9\n,True,\n"
    table = read_table(write_csv(tmp_path / "t.csv", content), ["id", "price"], all_text=True)
    assert table["id"].to_pylist() == ["02139", ""]
    assert table["price"].to_pylist() == ["1.50", "True"]
    assert table["note"].to_pylist() == [NOT_UTF_8, b""]


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.large_string(),
        pa.string_view(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_text_of_every_storage_becomes_strings(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["Łódź", None, ""], pa.string()).cast(kind)
    table = read_table(write(tmp_path / "t.parquet", {"name": column}), text=["name"])
    assert table["name"].type == pa.string()
    assert table["name"].to_pylist() == ["Łódź", None, ""]


def test_a_text_column_of_nulls_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"name": pa.nulls(2), "other": pa.nulls(2)})
    table = read_table(path, text=["name"])
    assert (table["name"].type, table["other"].type) == (pa.string(), pa.null())
