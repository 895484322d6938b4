from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client import encoding
from adprior_client.errors import InvalidArgumentError
from adprior_client.results import Advertiser, Forecast
from adprior_runtime import contract

FLOATS32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
IDS = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@given(st.lists(IDS))
def test_ids_survive_as_int64(ids: list[int]) -> None:
    encoded = encoding.encode_ids(ids, "candidates")
    assert encoded.dtype == np.int64
    assert encoded.tolist() == ids
    assert encoding.encode_ids(encoded.tolist(), "candidates").tolist() == ids


@given(st.lists(FLOATS32))
def test_logits_survive_as_fp32(logits: list[float]) -> None:
    values, sent = encoding.encode_logits(logits, "base_logits")
    assert values.dtype == np.float64
    assert sent.dtype == np.float32
    assert values.tolist() == sent.tolist() == logits


def test_arrays_are_accepted() -> None:
    ids: Any = np.array([3, 4], dtype=np.uint32)
    logits: Any = np.array([0.5, 1.5])
    assert encoding.encode_ids(ids, "candidates").tolist() == [3, 4]
    assert encoding.encode_logits(logits, "base_logits")[0].tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2.5], "candidates: found a float, expected an integer"),
        ([True], "candidates: found a bool, expected an integer"),
        (["1"], "candidates: found a str, expected an integer"),
        ([None], "candidates: found a NoneType, expected an integer"),
        ("12", "candidates: found str, expected a flat sequence"),
        (b"12", "candidates: found bytes, expected a flat sequence"),
        (None, "candidates: found NoneType, expected a flat sequence"),
        (7, "candidates: found int, expected a flat sequence"),
        (np.zeros((1, 2), dtype=np.int64), "candidates: found ndarray, expected a flat sequence"),
        (np.array([True]), "candidates: found a bool"),
        ([2**63], "candidates: found an integer of more than 64 bits"),
    ],
)
def test_wrong_ids_are_named(ids: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        encoding.encode_ids(ids, "candidates")


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0.0, math.nan], r"base_logits\[1\]: found nan, expected a finite FP32 number"),
        ([math.inf], r"base_logits\[0\]: found inf"),
        ([0.0, 0.0, 1e300], r"base_logits\[2\]: found 1e\+300"),
        ([10**400], "base_logits: found an integer beyond FP32"),
        ([False], "base_logits: found a bool, expected a number"),
        (["0.5"], "base_logits: found a str, expected a number"),
        ({0.5: 1}, "base_logits: found dict, expected a flat sequence"),
    ],
)
def test_wrong_logits_are_named(logits: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        encoding.encode_logits(logits, "base_logits")


@pytest.mark.parametrize("k", [0, -1, contract.MAX_TOP_K + 1, True, 2.0, "5", None])
def test_a_wrong_k_is_refused(k: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="k: found"):
        encoding.encode_top_k(k)


@pytest.mark.parametrize("k", [1, contract.MAX_TOP_K])
def test_k_is_one_int32(k: int) -> None:
    encoded = encoding.encode_top_k(k)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [k]


def _advertisers(*pairs: tuple[int, float]) -> tuple[Advertiser, ...]:
    return tuple(
        Advertiser(advertiser_id=number, name="", log_prob=log_prob) for number, log_prob in pairs
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"advertisers": _advertisers((7, -1.0), (7, -2.0))}, "an advertiser is named twice"),
        ({"advertisers": _advertisers((7, 0.5))}, r"log_probs: found 0\.5, expected at most 0"),
        ({"advertisers": _advertisers((7, math.nan))}, r"forecast.log_probs\[0\]: found nan"),
        ({"advertisers": ({},)}, "forecast: malformed"),
        ({"missing_mass": -0.1}, r"forecast\.missing_mass: found"),
        ({"missing_mass": 1.1}, r"forecast\.missing_mass: found"),
        ({"missing_mass": math.nan}, r"forecast\.missing_mass: found"),
        ({"missing_mass": None}, "forecast: malformed"),
        ({"request_id": None}, r"forecast\.request_id: found NoneType"),
        ({"exact": "no"}, r"forecast\.exact: found str"),
    ],
)
def test_an_impossible_forecast_is_refused(changed: dict[str, Any], message: str) -> None:
    forecast = Forecast(advertisers=(), exact=False, missing_mass=0.5, bundle_id="b")
    with pytest.raises(InvalidArgumentError, match=message):
        encoding.encode_forecast(replace(forecast, **changed))


def test_more_values_than_the_server_takes_are_refused() -> None:
    assert encoding.encode_ids([1, 2, 3], "candidates", 3).size == 3
    with pytest.raises(InvalidArgumentError, match="candidates: found 4, expected at most 3"):
        encoding.encode_ids([1, 2, 3, 4], "candidates", 3)
