from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import parse_time
from adprior_runtime.text.times import read_time

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-31 12:00:00",  # all of them, without a zone
        "2024-05-31T12:00:00",
        "2024-05-31 12:00:00 UTC",  # BigQuery
        "2024-05-31 12:00:00.000000 UTC",
        "2024-05-31 12:00:00.000 UTC",  # Trino, Athena
        "2024-05-31 12:00 UTC",
        "2024-05-31 12:00:00 GMT",
        "2024-05-31 12:00:00.000 +0000",  # Snowflake
        "2024-05-31 05:00:00.000 -0700",
        "2024-05-31 12:00:00.000000000 Z",
        "2024-05-31 12:00:00+00",  # Redshift, Postgres
        "2024-05-31 17:30:00.000000+05:30",
        "2024-05-31 17:30:00+0530",
        "2024-05-31T12:00:00.000Z",  # Spark
        "2024-05-31T14:00:00.000+02:00",
        "2024-05-31T14:00:00.000+0200",
        "2024-05-31 12:00:00.0",  # Hive
        "2024-05-31 12:00:00.0000000 +00:00",  # SQL Server
        "2024-05-31T12:00:00Z[UTC]",  # Java
        "2024-05-31T14:00+02:00[Europe/Paris]",
        "2024-05-31 12:00:00+00:00",  # pandas
        "2024-05-31 12:00:00.000000Z",  # Arrow
        " 2024-05-31 12:00:00 UTC\n",
        "20240531T120000Z",
    ],
)
def test_times_that_warehouses_export(text: str) -> None:
    assert parse_time(text, "time") == NOON


def test_fractions_are_kept_to_microseconds() -> None:
    expected = NOON.replace(microsecond=123456)
    for text in ("12:00:00.123456 UTC", "12:00:00.123456789 +0000", "12:00:00.123456+00"):
        assert parse_time(f"2024-05-31 {text}", "time") == expected


def test_a_time_without_a_zone_has_none_yet() -> None:
    assert read_time("2024-05-31 12:00:00").tzinfo is None
    assert read_time("2024-05-31 12:00:00 UTC").utcoffset() is not None


@pytest.mark.parametrize(
    "text",
    [
        "1717113600",  # seconds since 1970
        "1711123000000",  # milliseconds, which Python takes for the year 1711
        "2024-05-31 12:00:00 CET",
        "2024-05-31 12:00:00 Europe/Paris",
        "2024-05-31 UTC",
        "UTC",
        "5/31/2024",
        "",
    ],
)
def test_ambiguous_or_wrong_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="time: found a string that is not an ISO 8601"):
        parse_time(text, "time")


def test_a_bare_date_with_spaces_around_it_ends_with_its_day() -> None:
    assert parse_time(" 2024-05-31 ", "as_of", end_of_day=True).hour == 23
