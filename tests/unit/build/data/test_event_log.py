from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.event_log import UserHistory, all_are_ids, name_advertisers, read_users
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.terminal import progress

Write = Callable[[dict[str, Any]], Path]

COLUMNS = EventColumns(user="who", time="when", advertiser="brand")
NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Write columns as an event log in either format."""

    def run(columns: dict[str, Any]) -> Path:
        if request.param == "parquet":
            return write_parquet(tmp_path, columns)
        pa.csv.write_csv(pa.table(columns), tmp_path / "events.csv")
        return tmp_path / "events.csv"

    return run


def write_parquet(directory: Path, columns: dict[str, Any]) -> Path:
    path = directory / "events.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


def rows(count: int = 1, **columns: Any) -> dict[str, Any]:
    """Return the columns of equal rows, some of them replaced."""
    same = {"who": "a", "when": "2024-05-31", "brand": "Acme"}
    return {name: [value] * count for name, value in same.items()} | columns


def read(path: Path, **columns: Any) -> list[UserHistory]:
    return read_users(path, None, ColumnMap(events=replace(COLUMNS, **columns)))


def read_one(path: Path, **columns: Any) -> UserHistory:
    (user,) = read(path, **columns)
    return user


def advertisers(user: UserHistory) -> list[str | None]:
    return [event.advertiser for event in user.events]


def refusal(path: Path, **columns: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(path, **columns)
    message = str(caught.value)
    assert str(path.parent) in message
    assert "\n" not in message
    return message


def test_users_are_ordered_by_id_and_events_by_time(write: Write) -> None:
    times = [date(2024, 5, day) for day in (3, 2, 1, 1)]
    brands = ["Kite", "Acme", "Moss", None]
    users = read(write({"who": ["b", "a", "b", "a"], "when": times, "brand": brands}))
    assert [user.user_id for user in users] == ["a", "b"]
    assert [advertisers(user) for user in users] == [[None, "Acme"], ["Moss", "Kite"]]
    assert users[0].events[0].time == datetime(2024, 5, 1, tzinfo=UTC)
    assert users[0].profile == {}


def test_events_of_one_time_keep_the_order_of_the_log(write: Write) -> None:
    brands = ["Kite", "Acme", "Moss"]
    assert advertisers(read_one(write(rows(3, brand=brands)))) == brands


def test_every_column_of_the_map_is_read(write: Write) -> None:
    path = write(rows(kind=[" FOOD "], title=["007"], verb=["click"], unused=[1]))
    assert read_one(path, category="kind", text="title", action="verb").events == (
        Event(
            time=datetime(2024, 5, 31, tzinfo=UTC),
            action="click",
            advertiser="Acme",
            category="FOOD",
            text="007",
        ),
    )


def test_an_event_without_an_action_has_the_default_one(write: Write) -> None:
    path = write(rows(3, verb=["click", "", None]))
    user = read_one(path, action="verb", default_action="visit")
    assert [event.action for event in user.events] == ["click", "visit", "visit"]


def test_empty_texts_count_as_absent(write: Write) -> None:
    user = read_one(write(rows(brand=["  \u200b"], kind=["\ufeff"])), category="kind")
    assert (user.events[0].advertiser, user.events[0].category) == (None, None)


def test_ids_of_a_csv_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("who,when,brand\n007,2024-05-31,Acme\n7,2024-05-31,Acme\nNA,2024-05-31,Kite\n")
    assert [user.user_id for user in read(path)] == ["007", "7", "NA"]


DAY = NOON.replace(hour=0)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([DAY.date()], pa.date32()), DAY),
        (pa.array([DAY.date()], pa.date64()), DAY),
        (pa.array(["2024-05-31"]), DAY),
        (pa.array(["2024-05-31T14:00:00+02:00"]), NOON),
        *(
            (pa.array([NOON.replace(tzinfo=None)], pa.timestamp(unit)), NOON)
            for unit in ("s", "ms", "us", "ns")
        ),
        (
            pa.array(
                [NOON.astimezone(timezone(timedelta(hours=2)))], pa.timestamp("us", "Europe/Paris")
            ),
            NOON,
        ),
        (pa.array([int(NOON.timestamp()) * 10**9 + 1], pa.timestamp("ns")), NOON),
    ],
    ids=str,
)
def test_times_become_utc_moments(tmp_path: Path, times: pa.Array, expected: datetime) -> None:
    (event,) = read_one(write_parquet(tmp_path, rows(when=times))).events
    assert (event.time, event.time.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (["yesterday"], "row 0: time: found a string that is not an ISO 8601"),
        (
            [19_000],
            "column when holds numbers, expected dates or times; if they count since 1970, "
            'add time_unit = "s" (or "ms", "us", "ns") to [events] of the column map',
        ),
        ([1.5], "column when holds numbers"),
        ([True], "column when holds bool, expected dates, times, numbers or text"),
        ([["2024-05-31"]], "column when holds list<"),
        (pa.array([10**13], pa.timestamp("s")), "row 0: the time lies beyond the calendar"),
    ],
    ids=str,
)
def test_other_times_are_refused(tmp_path: Path, when: Any, message: str) -> None:
    assert message in refusal(write_parquet(tmp_path, rows(when=when)))


@pytest.mark.parametrize(
    "changed", [{"who": [None, "a"]}, {"who": ["", "a"]}, {"when": [None, date(2024, 5, 31)]}]
)
def test_a_row_without_user_or_time_is_refused(write: Write, changed: dict[str, Any]) -> None:
    path = write(rows(2, when=[date(2024, 5, 31)] * 2) | changed)
    assert refusal(path).replace(" (from 0)", "") == f"{path}: row 0 has no user or no time"


def test_a_user_id_that_is_not_a_number_is_absent(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, rows(who=[float("nan")]))
    assert "row 0 has no user" in refusal(path)


def test_the_columns_of_the_map_are_required(write: Write) -> None:
    assert "no column receipt" in refusal(write(rows()), event_id="receipt")


@pytest.mark.parametrize(
    ("name", "kind", "bits"),
    [
        ("who", pa.float64(), 53),
        ("brand", pa.float64(), 53),
        ("who", pa.float32(), 24),
        ("who", pa.float16(), 11),
    ],
)
def test_ids_that_lost_digits_are_refused(
    tmp_path: Path, name: str, kind: pa.DataType, bits: int
) -> None:
    ids = pa.array(np.array([2.0**bits], kind.to_pandas_dtype()), kind)
    message = refusal(write_parquet(tmp_path, rows(**{name: ids})))
    assert f"column {name} holds ids of type {kind} beyond 2^{bits}, which have" in message


@pytest.mark.parametrize(
    "brands",
    [
        pa.array([17, None, 99], pa.int64()),
        pa.array([17, None, 99], pa.uint8()),
        pa.array([17.0, None, 99.0]),
        pa.array([Decimal("17.0"), None, Decimal("99.0")], pa.decimal128(4, 1)),
    ],
    ids=["int64", "uint8", "double", "decimal"],
)
def test_whole_numbers_are_ids_that_become_names(write: Write, brands: pa.Array) -> None:
    user = read_one(write(rows(3, brand=brands)))
    assert all_are_ids([user])
    assert advertisers(user) == ["#17", None, "#99"]
    (named,) = name_advertisers([user], [5, 17], ["Kite", "Acme"])
    assert advertisers(named) == ["Acme", None, "#99"]


def test_negative_numbers_are_ids(tmp_path: Path) -> None:
    user = read_one(write_parquet(tmp_path, rows(brand=[-3])))
    assert all_are_ids([user])
    assert advertisers(name_advertisers([user], [-3], ["Acme"])[0]) == ["Acme"]


def test_fractions_are_neither_ids_nor_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, rows(brand=[17.5]))
    assert refusal(path).startswith(f"{path}: column brand holds numbers that are not whole")


@pytest.mark.parametrize("brand", ["365", "#Acme", "Acme", None])
def test_texts_are_names(tmp_path: Path, brand: str | None) -> None:
    user = read_one(write_parquet(tmp_path, rows(brand=pa.array([brand], pa.string()))))
    assert not all_are_ids([user])
    assert advertisers(user) == [brand]
    (named,) = name_advertisers([user], [17], ["Kite"])
    assert named.events[0] is user.events[0]  # not copied, for the sake of large logs


def test_a_csv_of_numbers_and_a_name_holds_names(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("who,when,brand\na,2024-05-31,365\na,2024-05-31,Acme\na,2024-05-31,1.50\n")
    assert advertisers(read_one(path)) == ["365", "Acme", "1.50"]


def test_each_pass_over_a_long_log_shows_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUICK_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    name_advertisers(read(write_parquet(tmp_path, rows())), [17], ["Kite"])
    shown = capsys.readouterr().err
    for text in ("reading ", "ordering histories: ", "naming advertisers: "):
        assert text in shown


def test_items_follow_their_events(write: Write) -> None:
    times = ["2024-05-03", "2024-05-01", "2024-05-02"]
    path = write(rows(3, when=times, brand=["C", "A", "B"], what=["c1", "a1", None]))
    user = read_one(path, item="what")
    assert (advertisers(user), list(user.items)) == (["A", "B", "C"], ["a1", "", "c1"])
    earlier = user.before(datetime(2024, 5, 3, tzinfo=UTC))
    assert (advertisers(earlier), list(earlier.items)) == (["A", "B"], ["a1", ""])


def test_an_item_may_be_the_number_0(tmp_path: Path) -> None:
    assert list(read_one(write_parquet(tmp_path, rows(what=[0])), item="what").items) == ["0"]


@pytest.mark.parametrize(
    ("when", "changed", "events", "note"),
    [
        ("2024-05-31", {}, 5, "kept, as events of one day"),
        (date(2024, 5, 31), {}, 5, "kept"),
        (NOON.replace(hour=0), {}, 5, "kept"),
        ("2024-05-31 00:00:00+02", {}, 5, "kept"),
        ("2024-05-31 12:00:00 UTC", {}, 2, "dropped"),
        (NOON, {}, 2, "dropped"),
        (NOON, {"repeated_rows": "keep"}, 5, "kept"),
        ("2024-05-31", {"repeated_rows": "drop"}, 2, "dropped"),
        ("2024-05-31", {"event_id": "price"}, 2, "dropped"),
    ],
)
def test_rows_that_repeat_another_are_kept_or_dropped(
    write: Write, when: Any, changed: dict[str, Any], events: int, note: str
) -> None:
    """Four rows are equal; the fifth differs in a column that the map does not name."""
    path = write(rows(5, when=[when] * 5, price=[1, 1, 1, 1, 2]))
    columns, notes = ColumnMap(events=replace(COLUMNS, **changed)), list[str]()
    (user,) = read_users(path, None, columns, say=notes.append)
    assert len(user.events) == events
    (line,) = notes
    assert line.startswith(f"{path}: 3 rows repeat another in every column: {note}")
    assert "repeated_rows" in line


def test_rows_that_differ_in_any_column_are_not_repeated(write: Write) -> None:
    notes = list[str]()
    path = write(rows(5, when=[NOON] * 5, price=[1, 2, 3, 4, 5]))
    (user,) = read_users(path, None, ColumnMap(events=COLUMNS), say=notes.append)
    assert (len(user.events), notes) == (5, [])
