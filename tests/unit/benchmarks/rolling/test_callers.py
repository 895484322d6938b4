"""Which answers count as mixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adprior_bench.rolling.bundle_answers import BundleAnswers
from adprior_bench.rolling.callers import Callers, Load
from adprior_client import Advertiser, ClientConfig, Forecast
from adprior_client.results import Ranking
from adprior_client.types import Source


def _forecast(bundle_id: str) -> Forecast:
    listed = Advertiser(advertiser_id=7, name="Acme", log_prob=-1.0)
    return Forecast(advertisers=(listed,), exact=True, missing_mass=0.5, bundle_id=bundle_id)


def _answers(bundle_id: str, held: float, live: float) -> BundleAnswers:
    return BundleAnswers(
        bundle_id=bundle_id,
        forecasts=[_forecast(bundle_id)],
        held=[np.array([held])],
        live=[np.array([live])],
    )


def _ranking(bundle_id: str, logit: float, forecast: Forecast | None) -> Ranking:
    logits = np.array([logit])
    return Ranking(
        logits=logits,
        advertiser_ids=np.array([7]),
        base_logits=np.array([0.0]),
        adjusted_logits=logits,
        log_probs=np.array([-1.0], dtype=np.float32),
        statuses=np.zeros(1, dtype=np.uint8),
        forecast=forecast,
        bundle_id=bundle_id,
        source=Source.CALLER,
        age_s=None,
        reason=None,
        request_id="",
        treatment=True,
        applied=True,
    )


@pytest.mark.parametrize(
    ("ranking", "is_live", "expected"),
    [
        (_ranking("blue", 1.0, _forecast("blue")), False, True),
        (_ranking("green", 3.0, _forecast("green")), False, True),
        (_ranking("green", 4.0, _forecast("green")), True, True),
        pytest.param(_ranking("green", 3.0, _forecast("blue")), False, False, id="ids that differ"),
        pytest.param(
            _ranking("green", 1.0, _forecast("green")), False, False, id="the other's logits"
        ),
        pytest.param(_ranking("red", 1.0, _forecast("red")), False, False, id="unknown bundle"),
        pytest.param(_ranking("blue", 1.0, None), False, False, id="no forecast"),
    ],
)
def test_an_answer_is_of_one_bundle_by_ids_and_by_logits(
    ranking: Ranking, is_live: bool, expected: bool
) -> None:
    load = Load(clients=1, servers=2, rate=1, live_share=0, seed=0)
    config = ClientConfig(urls=("localhost:1",))
    old, new = _answers("blue", 1.0, 2.0), _answers("green", 3.0, 4.0)
    callers = Callers(config, load, [], old=old, new=new)
    assert callers._is_of_one_bundle(ranking, 0, is_live=is_live) is expected
    if ranking.forecast is not None:
        shown = replace(ranking.forecast, bundle_id="other")
        other = _ranking(ranking.bundle_id, float(ranking.logits[0]), shown)
        assert not callers._is_of_one_bundle(other, 0, is_live=is_live)
