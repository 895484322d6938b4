from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.catalogue.log_ids import read_log_ids
from adprior_build.data.column_map import EventColumns
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError

COLUMNS = EventColumns(user="who", time="day", advertiser="brand")
MAP = '[events]\nuser = "who"\ntime = "day"\nadvertiser = "brand"\ncategory = "brand"\n'


def write(directory: Path, names: list[Any], ids: Any, suffix: str = "csv") -> Path:
    path = directory / f"events.{suffix}"
    users, days = [f"u{row}" for row in range(len(names))], ["2024-05-31"] * len(names)
    table = pa.table({"who": users, "day": days, "brand": names, "brand_id": ids})
    if suffix == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    return path


def derive(events: Path, *options: str) -> int:
    (events.parent / "columns.toml").write_text(MAP)
    arguments = ["catalogue", "--events", str(events), "--min-users", "2", "--columns"]
    arguments += [str(events.parent / "columns.toml"), "--id-column", "brand_id"]
    return main([*arguments, "--output", str(events.parent / "catalogue.csv"), *options])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    "ids",
    [
        [9_000_000_000, 17, 9_000_000_000, 17, 3],
        [9e9, 17.0, 9e9, None, 3.0],
        ["9000000000", "17", "9000000000", "17", "3"],
    ],
    ids=["integers", "floats", "texts"],
)
def test_the_logs_own_ids_become_the_catalogues(tmp_path: Path, suffix: str, ids: Any) -> None:
    names = ["Nestl\u00e9", "Acme", "Nestle\u0301", "Acme", "Rare"]
    assert derive(write(tmp_path, names, ids, suffix)) == 0
    found = read_catalogue(tmp_path / "catalogue.csv")
    assert dict(zip(found.ids, found.names, strict=True)) == {
        17: "Acme",
        9_000_000_000: "Nestl\u00e9",
    }


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        (["Acme", "Acme"], [7, 8], "advertiser 'Acme' has the ids 7 and 8, expected one id"),
        (["Acme", "Kite"], [7, 7], "id 7 has the names 'Acme' and 'Kite', expected one name"),
        (["Acme"], ["B-7"], "holds text, expected whole numbers of at most 64 bits"),
        (["Acme"], ["99999999999999999999"], "expected whole numbers of at most 64 bits"),
        (["Acme"], [7.5], "holds text, expected whole numbers"),
    ],
)
def test_other_ids_are_refused(tmp_path: Path, names: list[str], ids: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_log_ids(write(tmp_path, names, ids), COLUMNS, "brand_id")
    assert f"{tmp_path / 'events.csv'}: column brand_id" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_without_a_name_or_an_id_are_no_contradiction(tmp_path: Path) -> None:
    path = write(tmp_path, ["Acme", "Acme", None, "Kite"], [7, None, 7, None])
    assert read_log_ids(path, COLUMNS, "brand_id") == {"Acme": 7}


def test_a_listed_advertiser_needs_an_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, ["Acme", "Acme", "Kite", "Kite", "Moss"], [7, 7, None, None, None])
    assert derive(path) == 2
    assert capsys.readouterr().err == (
        f"adprior catalogue: {path}: column brand_id: no row has an id of advertiser 'Kite'; "
        "expected one for each\n"
    )
    assert not (tmp_path / "catalogue.csv").exists()


def test_ids_are_for_advertisers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert derive(write(tmp_path, ["Acme", "Acme"], [7, 7]), "--interests") == 2
    assert "--id-column is for advertisers; leave out --interests" in capsys.readouterr().err
