from __future__ import annotations

import pytest

from adprior_bench.report.tables import COUNT, Row, make_table, percent


def test_columns_are_the_names_of_the_cells() -> None:
    rows: list[Row] = [
        {"ranker": "a", "cases": 3, "share": 0.5},
        {"share": 0.1, "ranker": "b", "cases": 4},
    ]
    table = make_table(
        "Rankers",
        rows,
        {"cases": COUNT, "share": percent(1)},
        highlight=lambda row: row["ranker"] == "b",
    )
    assert [column["title"] for column in table["columns"]] == ["ranker", "cases", "share"]
    assert table["columns"][1:] == [
        {"title": "cases", "format": "count"},
        {"title": "share", "format": "percent", "digits": 1, "signed": False},
    ]
    assert table["rows"] == [["a", 3, 0.5], ["b", 4, 0.1]]
    assert table["highlight"] == [1]


def test_rows_have_the_same_cells() -> None:
    with pytest.raises(KeyError, match="share"):
        make_table("Rankers", [{"ranker": "a", "share": 0.5}, {"ranker": "b"}])
