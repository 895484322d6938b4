from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from adprior_build.data.time_columns import prepare_times, suggest_unit
from adprior_runtime.errors import InvalidInputError

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def prepare(values: Any, unit: str | None) -> tuple[list[Any], list[bool]]:
    """Return what a column's times are in UTC, and which name only a day."""
    alone, times = prepare_times(pa.chunked_array([pa.array(values)]), unit, "log: column when")
    plain = times.cast(pa.timestamp("us")) if pa.types.is_timestamp(times.type) else times
    return plain.to_pylist(), alone.to_pylist()


def refusal(values: Any, unit: str | None) -> str:
    with pytest.raises(InvalidInputError) as caught:
        prepare(values, unit)
    assert str(caught.value).startswith("log: column when")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.float64(), pa.decimal128(20, 0), pa.string(), pa.large_string()],
    ids=str,
)
def test_numbers_count_in_their_unit(unit: str, kind: pa.DataType) -> None:
    count = SECONDS * PER_SECOND[unit]
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    column = pa.array([str(count) if texts else count, None]).cast(kind, safe=False)
    naive = NOON.replace(tzinfo=None)
    assert prepare(column, unit) == ([naive, None], [False, True])


def test_a_dictionary_of_numbers_counts_too() -> None:
    assert prepare(pa.array([SECONDS] * 2).dictionary_encode(), "s")[0][1].hour == 12


def test_fractions_of_a_second_are_kept_to_the_microsecond() -> None:
    for values in ([SECONDS + 0.25], [f"{SECONDS}.25"], [Decimal(f"{SECONDS}.25")]):
        assert prepare(values, "s")[0] == [NOON.replace(microsecond=250_000, tzinfo=None)]


@pytest.mark.parametrize("values", [[86_400 * 19_000], [str(86_400 * 19_000)]])
def test_midnights_name_only_a_day(values: list[Any]) -> None:
    assert prepare(values, "s")[1] == [True]


def test_blank_texts_are_no_times() -> None:
    assert prepare(["", " ", str(SECONDS)], "s")[0][:2] == [None, None]


def test_whole_numbers_of_eight_digits_are_days_as_in_csv() -> None:
    assert prepare([20240531, None], None) == (["20240531", None], [True, True])
    assert prepare(["20240531"], None)[0] == ["20240531"]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        *(([SECONDS * factor], unit) for unit, factor in PER_SECOND.items()),
        *(([f" {SECONDS * factor}"], unit) for unit, factor in PER_SECOND.items()),
        ([float(SECONDS)], "s"),
        ([0], "s"),
        ([20240531], None),
        (["20240531"], None),
        (["2024-05-31"], None),
        (["", None], None),
        ([True], None),
        ([NOON], None),
    ],
)
def test_the_unit_is_suggested_by_size(values: list[Any], unit: str | None) -> None:
    assert suggest_unit(pa.chunked_array([pa.array(values)])) == unit


@pytest.mark.parametrize("unit", PER_SECOND)
def test_numbers_without_a_unit_are_refused_with_the_likely_one(unit: str) -> None:
    for values in ([SECONDS * PER_SECOND[unit]], [str(SECONDS * PER_SECOND[unit])]):
        assert f'add time_unit = "{unit}" (or ' in refusal(values, None)


def test_a_unit_of_times_is_refused() -> None:
    assert 'leave time_unit = "s" out of the column map' in refusal([NOON], "s")


def test_a_text_that_is_no_number_is_refused_with_its_row() -> None:
    message = refusal([str(SECONDS), "soon"], "s")
    assert "row 1 (from 0) has a time that is not a number" in message
    assert "soon" not in message


@pytest.mark.parametrize("values", [[2**62], [1e30], [str(10**30)], ["1e30"]])
def test_times_beyond_the_calendar_stay_beyond_it(values: list[Any]) -> None:
    _, times = prepare_times(pa.chunked_array([pa.array(values)]), "s", "log")
    (found,) = times.to_numpy().tolist()
    assert isinstance(found, int)  # no datetime, so `event_rows` refuses the row
