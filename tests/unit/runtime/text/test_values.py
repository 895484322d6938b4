from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.text.values import NoTextError, id_text, value_text

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("02139", "02139"),
        ("1.50", "1.50"),
        ("True", "True"),
        (" two  words\n", "two  words"),
        (np.str_("x"), "x"),
        (Colour.RED, "red"),
        (True, "true"),
        (np.False_, "false"),
        (34, "34"),
        (np.int8(-3), "-3"),
        (2**80, str(2**80)),
        (34.0, "34"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (2.0**60, str(2**60)),
        (1e-7, "1e-07"),
        (np.float32(0.1), "0.1"),
        (np.float16(0.1), "0.1"),
        (np.float32(34), "34"),
        (np.float64(2.5), "2.5"),
        (Decimal("34.00"), "34"),
        (Decimal("1.50"), "1.5"),
        (Decimal("1E+2"), "100"),
        (Decimal("0E-30"), "0"),
        (date(2024, 5, 31), "2024-05-31"),
        (NOON.replace(tzinfo=None), "2024-05-31T12:00:00"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2024-05-31T12:00:00+00:00"),
        (NOON.replace(microsecond=120_000), "2024-05-31T12:00:00.120000+00:00"),
        (time(12, 30), "12:30:00"),
        (np.datetime64("2024-05-31"), "2024-05-31"),
        (np.datetime64("2024-05-31T12:00:00.000000001"), "2024-05-31T12:00:00"),
        (pd.Timestamp("2024-05-31T12:00:00.000000001"), "2024-05-31T12:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pa.scalar(0.1, pa.float32()), "0.1"),
        (pa.scalar(None, pa.float32()), None),
        (pa.scalar(34.0), "34"),
        (pa.scalar("02139"), "02139"),
        (pa.scalar(True), "true"),
    ],
)
def test_the_text_of_a_value(value: Any, text: str | None) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " \t\n",
        math.nan,
        math.inf,
        np.float32("nan"),
        Decimal("NaN"),
        Decimal("-Infinity"),
        np.datetime64("NaT"),
        pd.NaT,
        pd.NA,
    ],
)
def test_what_counts_as_absent(value: Any) -> None:
    assert value_text(value) is None
    assert id_text(value) is None or isinstance(value, str)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1], "a list"),
        ((1,), "a list"),
        (np.array([1]), "a list"),
        ({"a": 1}, "an object"),
        (b"x", "bytes"),
        ({1}, "a set"),
        (timedelta(1), "a timedelta"),
        (np.timedelta64(1, "D"), "a timedelta64"),
        (1j, "a complex"),
        (pa.scalar([1]), "a list"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "a time beyond the calendar"),
    ],
)
def test_a_value_without_a_text_is_named_by_its_kind(value: Any, kind: str) -> None:
    with pytest.raises(NoTextError, match=f"^{kind}$"):
        value_text(value)


def test_a_users_id_of_text_stays_as_it_is() -> None:
    assert [id_text(value) for value in (" a ", "", 1.0, 1, None)] == [" a ", None, "1", "1", None]


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_float_has_one_text_whatever_its_width(value: float) -> None:
    single = np.float32(value)
    assert value_text(single) == value_text(float(str(single)))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text())
def test_a_text_is_its_own_text(value: Any) -> None:
    text = value_text(value)
    assert text is None or value_text(text) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_decimal_has_the_text_of_the_float_of_its_digits(value: Decimal) -> None:
    if abs(value) < 10**11:
        assert value_text(value) == value_text(float(value))
