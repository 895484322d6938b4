from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.data.repeated_rows import (
    day_alone,
    find_repeated,
    note_repeated,
    row_digests,
)

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
ROWS = st.lists(
    st.tuples(st.integers(0, 2) | st.none(), st.sampled_from(["a", "b", None, "ab"])), max_size=30
)


@given(ROWS)
def test_rows_that_python_finds_equal_are_repeated(rows: list[tuple[Any, Any]]) -> None:
    schema = pa.schema([("x", pa.int64()), ("y", pa.string())])
    columns = [pa.array([row[place] for row in rows], schema.field(place).type) for place in (0, 1)]
    table = pa.Table.from_arrays(columns, schema=schema)
    expected = [row in rows[:place] for place, row in enumerate(rows)]
    assert find_repeated(row_digests(table)).tolist() == expected


def test_rows_of_different_files_can_be_compared() -> None:
    """Neither the order of columns, nor their types, nor a column without values matters."""
    first = pa.table({"who": ["a"], "n": pa.array([5], pa.int64()), "at": [NOON]})
    second = pa.table(
        {
            "at": pa.array([NOON], pa.timestamp("ns", "UTC")),
            "n": [5.0],
            "who": pa.array(["a"]).dictionary_encode(),
            "empty": pa.nulls(1),
        }
    )
    assert (row_digests(first) == row_digests(second)).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": ["x"], "b": ["y"]}, {"a": ["y"], "b": ["x"]}),
        ({"a": ["xy"], "b": [""]}, {"a": ["x"], "b": ["y"]}),
        ({"a": [None]}, {"a": [""]}),
        ({"a": [b"\xff"]}, {"a": [b"\xfe"]}),
        ({"a": [[1, 2]]}, {"a": [[1]]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
        ({"a": [1.5]}, {"a": [1.25]}),
        ({"a": [True]}, {"a": [False]}),
        ({"a": [None]}, {"a": [0]}),
        ({"a": np.array([2**63], np.uint64)}, {"a": np.array([2**63 + 1], np.uint64)}),
        ({"a": [1], "b": [2]}, {"a": [2], "b": [1]}),
        ({"a": pa.array([1], pa.timestamp("ns"))}, {"a": pa.array([2], pa.timestamp("ns"))}),
        ({"a": pa.array([2**31 - 1], pa.date32())}, {"a": pa.array([2**31 - 2], pa.date32())}),
    ],
)
def test_rows_that_differ_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (row_digests(pa.table(first)) != row_digests(pa.table(second))).any()
    assert (row_digests(pa.table(first)) == row_digests(pa.table(first))).all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 1, 2], pa.timestamp("ns")),
        ([1, 1, 2], pa.time64("ns")),
        ([1, 1, 2], pa.timestamp("us", "Nowhere/Known")),
        ([2**60, 2**60, 1], pa.timestamp("s")),
        ([2**60, 2**60, 1], pa.duration("s")),
        ([b"\xff", b"\xff", b"\xfe"], pa.string()),
        ([b"\xff", b"\xff", b"\xfe"], pa.large_string()),
    ],
)
def test_nested_values_that_python_cannot_represent_are_compared(
    values: list[Any], kind: pa.DataType
) -> None:
    raw = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, pa.int64())
    array = pa.array(values, raw).view(kind)
    twice = pa.StructArray.from_arrays([array, array], names=["same", "same"])
    keys = pa.array(["a", "b", "c"])
    ends = pa.array([0, 1, 2, 3], pa.int32())
    for nested in (
        pa.ListArray.from_arrays(ends, array),
        twice,
        pa.ListArray.from_arrays(ends, twice),
        pa.FixedSizeListArray.from_arrays(array, 1),
        pa.MapArray.from_arrays(ends, keys.take(pa.array([0, 0, 0])), array),
    ):
        digests = row_digests(pa.table({"a": nested}))
        assert find_repeated(digests).tolist() == [False, True, False], nested.type


def test_a_table_without_rows_has_nothing_repeated() -> None:
    assert find_repeated(row_digests(pa.table({"a": pa.array([], pa.string())}))).size == 0
    assert find_repeated(np.zeros((1, 2), dtype=np.uint64)).tolist() == [False]


def test_some_times_name_only_a_day() -> None:
    midnight_in_paris = datetime(2024, 5, 30, 22, tzinfo=UTC)
    texts = ["2024-05-31", "2024-05-31 00:00:00 UTC", "2024-05-31T00:00+02:00", "20240531"]
    finer = ["2024-05-31 12:00:00", "2024-05-31T00:00:01Z", "2024-05-31 00:30"]
    for column, expected in (
        (pa.array([date(2024, 5, 31), None]), [True, True]),
        (pa.array([midnight_in_paris, NOON], pa.timestamp("us", "Europe/Paris")), [True, False]),
        (pa.array([midnight_in_paris, None], pa.timestamp("s", "UTC")), [False, True]),
        (pa.array([0, 1], pa.timestamp("ns")), [True, False]),
        (pa.array([*texts, *finer, None]), [True] * 4 + [False] * 3 + [True]),
    ):
        assert day_alone(pa.chunked_array([column])).tolist() == expected


@pytest.mark.parametrize(
    ("dropped", "kept", "start"),
    [
        (1, 0, "log: 1 row repeats another in every column: dropped"),
        (0, 2, "log: 2 rows repeat another in every column: kept, as events of one day"),
        (1200, 1, "log: 1,201 rows repeat another in every column: 1,200 dropped, 1 kept"),
    ],
)
def test_repeated_rows_are_reported_with_the_key_that_decides(
    dropped: int, kept: int, start: str
) -> None:
    (note,) = note_repeated("log", dropped=dropped, kept=kept)
    assert note.startswith(start)
    assert "[events] repeated_rows" in note
    assert note_repeated("log", dropped=0, kept=0) == []


@pytest.mark.parametrize(
    "values",
    [
        pa.array([Decimal("1.5"), None]),
        pa.array([b"\xff", b"\xfe"], pa.binary_view()),
        pa.array([b"abc", b"abd"], pa.binary(3)),
        pa.array([(1, 2, 3), (1, 2, 4)], pa.month_day_nano_interval()),
        pa.array([["a"], []], pa.list_view(pa.string())),
        pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, b"b" * 16], pa.binary(16))),
    ],
    ids=lambda values: str(values.type),
)
def test_values_of_every_type_have_digests(values: pa.Array) -> None:
    digests = row_digests(pa.table({"a": values}))
    assert (digests[0] != digests[1]).any()
