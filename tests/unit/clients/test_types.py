from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client.requests import ForecastRequest, ScoreRequest
from adprior_client.results import Advertiser, Forecast, RankedCandidate
from adprior_client.types import Event, User
from support.client_calls import SECRET


@pytest.mark.parametrize(("log_prob", "probability"), [(math.log(0.5), 0.5), (1e-6, 1.0)])
def test_a_probability_is_at_most_one(log_prob: float, probability: float) -> None:
    found = Advertiser(advertiser_id=1, name="Acme", log_prob=log_prob)
    assert found.probability == pytest.approx(probability)
    assert found.probability <= 1.0


def test_values_are_immutable() -> None:
    user = User(as_of="2024-05-31")
    with pytest.raises(FrozenInstanceError):
        user.as_of = "2024-06-01"  # type: ignore[misc]


def test_no_repr_shows_a_user() -> None:
    event = Event(time="2024-05-30", action="buy", advertiser=SECRET, text=SECRET)
    user = User(profile={"note": SECRET}, history=[event], as_of="2024-05-31")
    things = (
        user,
        event,
        ForecastRequest(user=user, user_id=SECRET),
        ScoreRequest(subject=user, candidates=[], base_logits=[], user_id=SECRET),
    )
    assert SECRET not in repr(things)


def test_a_forecast_has_the_json_of_the_contract() -> None:
    advertiser = Advertiser(advertiser_id=7, name="Żabka", log_prob=-1.0)
    forecast = Forecast(advertisers=(advertiser,), exact=True, missing_mass=0.25, bundle_id="b")
    assert forecast.to_json() == {
        "advertisers": [
            {"advertiser_id": 7, "name": "Żabka", "log_prob": -1.0, "probability": math.exp(-1.0)}
        ],
        "exact": True,
        "missing_mass": 0.25,
        "bundle_id": "b",
    }


@given(log_prob=st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_a_candidate_is_always_json(log_prob: float | None) -> None:
    candidate = RankedCandidate(
        advertiser_id=7, base_logit=0.5, adjusted_logit=0.75, log_prob=log_prob, status="exact"
    )
    document = candidate.to_json()
    json.dumps(document, allow_nan=False)
    finite = log_prob is not None and math.isfinite(log_prob)
    assert document == {
        "advertiser_id": 7,
        "base_logit": 0.5,
        "adjusted_logit": 0.75,
        "log_prob": log_prob if finite else None,
        "status": "exact",
    }
