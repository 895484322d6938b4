from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_runtime.cli import main
from support.small_checkpoint import CUT, SmallData
from support.tokens import compact_template


def _derive(data: SmallData, output: Path, *options: str) -> int:
    arguments = ["catalogue", "--events", str(data.path("events.parquet")), "--min-users", "1"]
    arguments += ["--columns", str(data.path("columns.toml")), "--output", str(output)]
    return main([*arguments, *options])


@pytest.fixture
def data(tmp_path: Path) -> SmallData:
    return SmallData.write(tmp_path)


def _write(data: SmallData, *brands: str) -> None:
    day = CUT - timedelta(days=3)
    rows = [{"who": f"user-{n}", "day": day, "brand": b, "kind": ""} for n, b in enumerate(brands)]
    data.write_events(rows)


def test_every_spelling_of_a_name_is_listed_once(data: SmallData, tmp_path: Path) -> None:
    _write(data, "Nestl\u00e9", "Nestle\u0301", "Ne\u200bstl\u00e9", "\u200b", "Acme")
    assert _derive(data, tmp_path / "out.csv") == 0
    assert read_catalogue(tmp_path / "out.csv").names == ("Nestl\u00e9", "Acme")


def test_interests_are_the_categories(data: SmallData, tmp_path: Path) -> None:
    assert _derive(data, tmp_path / "out.csv", "--interests") == 0
    assert (tmp_path / "out.csv").read_text() == '"interest_id","name"\n1,"food"\n'
    assert read_catalogue(tmp_path / "out.csv", "interest").names == ("food",)


def test_interests_need_a_category_column(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = data.path("columns.toml")
    columns.write_text(columns.read_text().replace('category = "kind"\n', ""))
    assert _derive(data, tmp_path / "out.csv", "--interests") == 2
    error = capsys.readouterr().err
    assert f"no event has a category; expected a category column in {columns}" in error


def test_long_names_are_reported_with_the_key_that_sets_the_limit(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(data, "x" * 81, "Acme")
    assert _derive(data, tmp_path / "out.csv") == 0
    error = capsys.readouterr().err
    assert "longer than 64 characters: 1;" in error
    assert "max_field_chars" in error


def test_names_that_differ_only_beyond_the_limit_need_a_higher_one(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(data, "x" * 80 + "a", "x" * 80 + "b")
    assert _derive(data, tmp_path / "out.csv") == 2
    error = capsys.readouterr().err
    assert "the same in their first 64 characters" in error
    assert "max_field_chars" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()
    path = tmp_path / "template.json"
    path.write_text(replace(compact_template(64), max_field_chars=100).to_json())
    assert _derive(data, tmp_path / "out.csv", "--template", str(path)) == 0
    assert capsys.readouterr().err == ""
    assert len(read_catalogue(tmp_path / "out.csv").ids) == 2


def test_a_catalogue_without_advertisers_is_not_written(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(data, "Acme")
    assert _derive(data, tmp_path / "out.csv", "--min-users", "9") == 2
    assert "no advertiser has events of 9 users; lower --min-users" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_newcomers_are_listed_last_with_nothing_but_name_and_category(
    data: SmallData, tmp_path: Path
) -> None:
    """A newcomer is named by no event that was counted, even if too few users acted on it."""
    early, late = CUT - timedelta(days=3), CUT + timedelta(days=3)
    rows = [("a", early, "Acme", "PETS"), ("b", early, "Acme", "PETS"), ("a", late, "Acme", "FOOD")]
    rows += [("a", early, "Rare", "FOOD"), ("a", late, "Zoo", ""), ("b", late, "Birch", "LAMPS")]
    data.write_events(
        [{"who": who, "day": day, "brand": brand, "kind": kind} for who, day, brand, kind in rows]
    )
    output = tmp_path / "out.csv"
    options = ("--min-users", "2", "--cut", CUT.isoformat(), "--newcomers")
    assert _derive(data, output, *options) == 0
    found = read_catalogue(output)
    assert (found.ids, found.names) == ((1, 2, 3), ("Acme", "Birch", "Zoo"))
    assert found.table["category"].to_pylist() == ["PETS", "LAMPS", ""]
