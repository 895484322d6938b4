from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from adprior_bench.quality.intervals import Estimate
from adprior_bench.report.plain import check, contents, plain
from adprior_runtime.errors import InvalidInputError
from support.quality_report import GAIN, NOTHING, report


def _plain() -> dict[str, Any]:
    found: dict[str, Any] = plain(report())
    return found


def test_a_plain_report_is_json_and_stays_as_it_is() -> None:
    shown = _plain()
    check(shown)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert plain(shown) == shown


def test_values_become_those_of_json() -> None:
    assert plain(GAIN) == {"value": 0.0123, "low": -0.0004, "high": 0.025}
    assert plain([NOTHING, float("nan"), np.float64(0.5), np.int64(3), True]) == [
        None, None, 0.5, 3, True,
    ]  # fmt: skip
    assert plain({"a": np.array([1.0, np.inf])}) == {"a": [1.0, None]}
    half = Estimate(value=1.0, low=float("nan"), high=2.0)
    assert plain(half) == {"value": 1.0, "low": None, "high": 2.0}


def _spoil_row(items: list[dict[str, Any]]) -> None:
    items[0]["rows"][1] = ["one"]


def _spoil_format(items: list[dict[str, Any]]) -> None:
    items[0]["columns"][1]["format"] = "percentage"


def _spoil_kind(items: list[dict[str, Any]]) -> None:
    items[1]["kind"] = "pie"


def _spoil_name(items: list[dict[str, Any]]) -> None:
    items[1]["name"] = "../elsewhere"


def _repeat_name(items: list[dict[str, Any]]) -> None:
    items[2]["name"] = items[1]["name"]


def _spoil_series(items: list[dict[str, Any]]) -> None:
    items[3]["series"][0]["estimates"].pop()


def _empty_forest(items: list[dict[str, Any]]) -> None:
    items[4]["groups"] = []


def _spoil_highlight(items: list[dict[str, Any]]) -> None:
    items[0]["highlight"] = [2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_spoil_row, "section 'Rankers', table 'All cases', row 1 .*: 1 cells, expected 4"),
        (_spoil_format, "column 'recall@10': format 'percentage', expected one of text, count"),
        (_spoil_kind, "pie 'Reliability': unknown kind, expected table, reliability, bars"),
        (_spoil_name, "name '../elsewhere', expected one of its own"),
        (_repeat_name, "bars 'Recall': name 'reliability', expected one of its own"),
        (_spoil_series, "lines .*, series 'products': 2 estimates, expected 3"),
        (_empty_forest, "forest 'Gain': nothing to draw, expected groups"),
        (_spoil_highlight, "table 'All cases': row 2 .* highlighted, but there are 2"),
    ],
)
def test_what_cannot_be_shown_is_named(spoil: Any, message: str) -> None:
    shown = _plain()
    spoil([item for _, item in contents(shown)])
    with pytest.raises(InvalidInputError, match=message):
        check(shown)
