from __future__ import annotations

import pytest

from adprior_runtime.terminal.tables import (
    Column,
    format_bar,
    format_percent,
    format_sparkline,
    format_table,
)

COLUMNS: tuple[Column, ...] = (("name", "left"), ("id", "right"))


def test_columns_are_aligned_also_under_wide_characters() -> None:
    assert format_table(COLUMNS, [("Acme", "7"), ("三星", "1024")]) == (
        "name    id\nAcme     7\n三星  1024"
    )


def test_no_rows_leave_the_headings() -> None:
    assert format_table(COLUMNS, []) == "name  id"


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in format_table(COLUMNS, [("\x1b[2Jevil", "1")])


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.3125, "31.2 %"),
        (0.000011, "0.0011 %"),
        (1e-9, "1e-07 %"),
    ],
)
def test_percentages(probability: float, shown: str) -> None:
    assert format_percent(probability) == shown


@pytest.mark.parametrize(
    ("fraction", "blocks"), [(0.0, 0), (1e-9, 1), (0.5, 5), (1.0, 10), (2.0, 10), (-1.0, 0)]
)
def test_bars(fraction: float, blocks: int) -> None:
    assert format_bar(fraction, width=10) == "█" * blocks


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([9.0, 5.5, 2.0], "█▅▁"),
        ([8.0, 8.0, 4.0, 4.0, 1.0, 1.0], "█▄▁"),
    ],
)
def test_sparklines(values: list[float], shown: str) -> None:
    assert format_sparkline(values, width=3) == shown
