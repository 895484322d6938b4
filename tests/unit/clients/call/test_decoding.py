from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adprior_client import encoding
from adprior_client._call import decoding
from adprior_client.errors import BadAnswerError
from adprior_client.results import Advertiser, Forecast
from adprior_client.types import Source
from adprior_runtime import contract

LOG_PROBS = st.floats(width=32, min_value=-1000.0, max_value=0.0)
IDS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ADVERTISERS = st.builds(Advertiser, advertiser_id=IDS, name=TEXTS, log_prob=LOG_PROBS)


def _possible(advertisers: list[Advertiser]) -> tuple[Advertiser, ...]:
    """Return the most probable first, with probabilities that sum to at most 1."""
    ranked = sorted(advertisers, key=lambda item: -item.log_prob)
    shift = np.float32(np.log(len(ranked) or 1))
    return tuple(
        replace(item, log_prob=float(np.float32(item.log_prob) - shift)) for item in ranked
    )


FORECASTS = st.builds(
    Forecast,
    advertisers=st.lists(ADVERTISERS, max_size=20, unique_by=lambda a: a.advertiser_id).map(
        _possible
    ),
    exact=st.booleans(),
    missing_mass=st.floats(width=32, min_value=0.0, max_value=1.0),
    bundle_id=TEXTS,
)


def _answer_of(forecast: Forecast) -> dict[str, NDArray[Any]]:
    names = [advertiser.name.encode() for advertiser in forecast.advertisers]
    return encoding.encode_forecast(forecast) | {
        contract.ADVERTISER_NAMES: np.array(names, dtype=np.object_),
        contract.EXACT: np.array([forecast.exact]),
        contract.BUNDLE_ID: np.array([forecast.bundle_id.encode()], dtype=np.object_),
        contract.ANSWER_VERSION: VERSION,
    }


def _small_forecast() -> Forecast:
    advertiser = Advertiser(advertiser_id=7, name="Acme", log_prob=-1.0)
    return Forecast(advertisers=(advertiser,), exact=True, missing_mass=0.5, bundle_id="b")


VERSION = np.array([contract.CONTRACT_VERSION.encode()], dtype=np.object_)


def _answer(**changed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    answer: dict[str, NDArray[Any]] = {
        contract.ADJUSTMENTS: np.array([0.5, 0.5, 0.0], dtype=np.float32),
        contract.CANDIDATE_LOG_PROBS: np.array([-1.0, -np.inf, np.nan], dtype=np.float32),
        contract.CANDIDATE_STATUS: np.array([0, 1, 2], dtype=np.uint8),
        contract.ADJUSTMENT_LIMIT: np.array([0.5], dtype=np.float32),
        contract.BUNDLE_ID: np.array([b"b"], dtype=np.object_),
        contract.ANSWER_VERSION: VERSION,
    }
    return answer | changed


@given(FORECASTS)
def test_a_forecast_survives_the_tensors(forecast: Forecast) -> None:
    decoded = decoding.decode_forecast(_answer_of(forecast), "r")
    live = replace(forecast, source=Source.LIVE, request_id="r", made_at=decoded.made_at)
    assert decoded == live
    assert decoded.age_s is not None
    assert 0 <= decoded.age_s < 60


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({contract.LOG_PROBS: np.array([np.nan], dtype=np.float32)}, "LOG_PROBS: found a value"),
        ({contract.LOG_PROBS: np.array([0.5], dtype=np.float32)}, "LOG_PROBS: found a value"),
        ({contract.LOG_PROBS: np.zeros(2, dtype=np.float32)}, "LOG_PROBS: found 2 values"),
        ({contract.MISSING_MASS: np.array([np.nan])}, "MISSING_MASS: found nan"),
        ({contract.MISSING_MASS: np.array([1.5])}, r"MISSING_MASS: found 1\.5"),
        ({contract.ADVERTISER_NAMES: np.array([b"\xff"], dtype=np.object_)}, "not UTF-8"),
        ({contract.BUNDLE_ID: np.array([b"\xff"], dtype=np.object_)}, "BUNDLE_ID: not UTF-8"),
    ],
)
def test_an_impossible_forecast_is_a_bad_answer(
    changed: dict[str, NDArray[Any]], message: str
) -> None:
    with pytest.raises(BadAnswerError, match=message):
        decoding.decode_forecast(_answer_of(_small_forecast()) | changed)


def test_a_bound_that_rounding_pushed_past_one_is_one() -> None:
    changed = {contract.MISSING_MASS: np.array([1.00001], dtype=np.float32)}
    assert decoding.decode_forecast(_answer_of(_small_forecast()) | changed).missing_mass == 1.0


def test_priors_are_in_the_order_of_the_candidates() -> None:
    priors = decoding.decode_priors(3, _answer())
    assert priors.adjustments.tolist() == [0.5, 0.5, 0.0]
    assert priors.log_probs.tolist()[:2] == [-1.0, -math.inf]
    assert math.isnan(priors.log_probs[2])
    assert (priors.statuses.tolist(), priors.bundle_id) == ([0, 1, 2], "b")


def _adjustments(*values: float) -> dict[str, NDArray[Any]]:
    return {contract.ADJUSTMENTS: np.array(values, dtype=np.float32)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (_adjustments(0.5, np.nan, 0), "ADJUSTMENTS: found a"),
        (_adjustments(0.5, np.inf, 0), "ADJUSTMENTS: found a"),
        (_adjustments(0.5, 0.5), "ADJUSTMENTS: found 2 values, expected 3"),
        (_adjustments(-0.51, 0.5, 0), r"found a change of 0\.51, the bundle's limit is 0\.5"),
        (_adjustments(0.5, -0.5, 0.25), "ADJUSTMENTS: found a change for an advertiser outside"),
        ({contract.ADJUSTMENT_LIMIT: np.array([np.nan])}, "the bundle's limit is nan"),
        ({contract.CANDIDATE_STATUS: np.array([0, 1, 9])}, "CANDIDATE_STATUS: found 9"),
        ({contract.CANDIDATE_LOG_PROBS: np.full(3, np.nan)}, "CANDIDATE_LOG_PROBS: found a value"),
        ({contract.CANDIDATE_LOG_PROBS: np.ones(3)}, "CANDIDATE_LOG_PROBS: found a value"),
        (
            {contract.ANSWER_VERSION: np.array([b"0"], dtype=np.object_)},
            "CONTRACT_VERSION: found 0, expected 1",
        ),
    ],
)
def test_impossible_priors_are_a_bad_answer(changed: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(BadAnswerError, match=message):
        decoding.decode_priors(3, _answer(**changed))


@given(st.floats(0.0009765625, 10.0))
def test_a_change_up_to_the_limit_passes(limit: float) -> None:
    answer = {
        contract.ADJUSTMENTS: np.array([limit, -limit, 0.0], dtype=np.float32),
        contract.ADJUSTMENT_LIMIT: np.array([limit], dtype=np.float32),
    }
    decoding.decode_priors(3, _answer(**answer))
