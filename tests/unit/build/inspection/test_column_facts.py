from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from adprior_build.inspection.column_facts import ColumnFacts, describe_columns

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


def describe(values: Any) -> ColumnFacts:
    (facts,) = describe_columns(pa.table({"x": values}))
    return facts


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        (["a", "1"], "text"),
        (["1", "02"], "whole numbers"),
        (["7.0"], "whole numbers"),
        (["7.5", "1"], "numbers"),
        (["true", "False "], "true or false"),
        (["2024-05-31", "2024-06-01 00:00:00"], "days"),
        (["20240531"], "days"),
        (["12345678", "20240531"], "whole numbers"),
        (["2024-05-31 12:00"], "times without a zone"),
        (["2024-05-31T12:00:00Z"], "times with a zone"),
        (["2024-05-31T12:00:00Z", "2024-05-31T12:00:00"], "times, some with a zone"),
        (["", "  ", None], "nothing"),
        ([b"\xff"], "text that is not UTF-8"),
        ([7], "whole numbers"),
        ([20240531], "days"),
        ([7.0, None], "whole numbers"),
        ([7.5], "numbers"),
        ([True], "true or false"),
        ([date(2024, 5, 31)], "days"),
        ([NOON], "times with a zone"),
        ([NOON.replace(tzinfo=None)], "times without a zone"),
        ([NOON.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)], "days"),
        ([["a"]], "lists"),
        ([{"a": 1}], "structs"),
        (pa.array(["a", "b"]).dictionary_encode(), "text"),
        (pa.nulls(2), "nothing"),
    ],
    ids=str,
)
def test_what_a_column_holds(values: Any, holds: str) -> None:
    assert describe(values).holds == holds


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([SECONDS], "s"),
        ([str(SECONDS * 1000)], "ms"),
        ([SECONDS * 10**6], "us"),
        ([float(SECONDS * 10**9)], "ns"),
        ([7], None),
        ([SECONDS, 7], None),
        (["4711"], None),
    ],
    ids=str,
)
def test_numbers_of_our_age_may_be_times(values: Any, unit: str | None) -> None:
    assert describe(values).unit == unit


def test_blank_text_is_empty_and_the_most_frequent_value_is_the_example() -> None:
    facts = describe(["Acme", "Acme", "", None, "Kite"])
    assert (facts.rows, facts.empty, facts.distinct, facts.example) == (5, 2, 2, "Acme")
    assert facts.share_distinct == pytest.approx(2 / 3)


def test_a_value_that_occurs_once_is_no_example() -> None:
    assert describe(["a@example.org", "b@example.org"]).example == ""
    assert len(describe(["x" * 99] * 2).example) == 24


def test_a_part_of_a_larger_column_is_described_as_itself() -> None:
    column = pa.array([str(number) for number in range(1000)], pa.large_string()).slice(500, 9)
    facts = describe(column)
    assert (facts.rows, facts.empty, facts.distinct, facts.holds) == (9, 0, 9, "whole numbers")


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        (pa.array([1.5, 2.0, 2.0]).cast(pa.float16()), "numbers"),
        (pa.array([1.0, 2.0, 2.0]).cast(pa.float16()), "whole numbers"),
        (pa.array([400_000_000_000] * 3, pa.timestamp("s")), "times without a zone"),
        (pa.array([400_000_000_000] * 3, pa.timestamp("s", "UTC")), "times with a zone"),
        (pa.array([10_000_000] * 3, pa.date32()), "days"),
    ],
    ids=["fractions", "whole", "unzoned", "zoned", "days"],
)
def test_values_that_cannot_be_counted_or_shown_are_described_without_them(
    values: pa.Array, holds: str
) -> None:
    facts = describe(values)
    assert (facts.holds, facts.rows, facts.empty) == (holds, 3, 0)
    assert (facts.distinct, facts.unit, facts.example) == (None, None, "")
