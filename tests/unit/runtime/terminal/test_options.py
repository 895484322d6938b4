from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from adprior_runtime.terminal.options import (
    day,
    duration,
    moment,
    number_from_zero,
    positive_integer,
    positive_number,
    share,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (day, "2024-05-31", date(2024, 5, 31)),
        (moment, "2024-05-31", datetime(2024, 5, 31, tzinfo=UTC)),
        (moment, "2024-05-31T14:00+02:00", datetime(2024, 5, 31, 12, tzinfo=UTC)),
        (share, "0", 0.0),
        (share, "0.25", 0.25),
        (positive_number, "1e-3", 1e-3),
        (duration, "90s", 90.0),
        (duration, "0.5m", 30.0),
        (duration, "2h", 7200.0),
        (positive_integer, "7", 7),
        (number_from_zero, "0", 0.0),
        (number_from_zero, "1.5", 1.5),
    ],
)
def test_a_good_value_is_taken(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (day, "yesterday"),
        (day, "2024-02-31"),
        (moment, "1717156800"),
        (share, "1"),
        (share, "-0.1"),
        (share, "nan"),
        (share, "half"),
        (positive_number, "0"),
        (duration, "10"),
        (duration, "0s"),
        (duration, "m"),
        (duration, "infs"),
        (duration, ""),
        (positive_number, "inf"),
        (positive_number, "nan"),
        (number_from_zero, "-0.1"),
        (number_from_zero, "inf"),
        (number_from_zero, "nan"),
        (positive_integer, "0"),
        (positive_integer, "-1"),
        (positive_integer, "1.5"),
        (positive_integer, "many"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected(
    parse: Callable[[str], Any], text: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=rf"found '{text}', expected a"):
        parse(text)
