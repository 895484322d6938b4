from __future__ import annotations

from typing import Any

import pytest

from adprior_bench.report.cells import cell_text, split_cell, unit_of


@pytest.mark.parametrize(
    ("cell", "column", "shown"),
    [
        ("own history", {}, "own history"),
        (None, {"format": "percent"}, "\N{EN DASH}"),
        (7, {}, "7"),
        (0.12345, {}, "0.123"),
        (12345, {"format": "count"}, "12,345"),
        (0.12345, {"format": "decimal", "digits": 2}, "0.12"),
        (0.12345, {"format": "percent"}, "12.3 %"),
        (0.00012, {"format": "percent", "digits": 2}, "0.01 %"),
        (0.012, {"format": "percent", "signed": True}, "+1.2 %"),
        (-0.012, {"format": "points"}, "-1.2 pp"),
        (0.012, {"format": "points"}, "+1.2 pp"),
        (-0.0001, {"format": "points"}, "0.0 pp"),
        (
            {"value": 0.171, "low": 0.134, "high": 0.216},
            {"format": "percent"},
            "17.1 % [13.4, 21.6]",
        ),
        ({"value": 0.171, "low": None, "high": None}, {"format": "percent"}, "17.1 %"),
    ],
)
def test_a_cell_is_shown_as_its_column_says(cell: Any, column: dict[str, Any], shown: str) -> None:
    assert cell_text(cell, column) == shown


def test_the_interval_stands_apart() -> None:
    estimate = {"value": 0.01, "low": -0.0001, "high": 0.02}
    assert split_cell(estimate, {"format": "points"}) == ("+1.0 pp", "[0.0, +2.0]")
    assert unit_of({"format": "points"}) == "pp"
    assert unit_of({}) == ""
