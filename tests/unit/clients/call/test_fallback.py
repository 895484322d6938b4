"""Results without a live answer, and the stored forecasts that are used."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from adprior_client import Forecast, RankingClient, Reason, RetrievalClient
from adprior_client.stored.forecast_time import CLOCK_SKEW
from adprior_runtime import contract
from support.client_calls import (
    BASE,
    CANDIDATES,
    FORECAST,
    USER,
    Kind,
    assert_harmless,
    every_kind,
    every_live_kind,
)
from support.fake_triton import FakeTriton

ADJUSTED = pytest.approx([0.35, -1.45, 2.3], abs=1e-7)
NOW = datetime.now(UTC)
STORED = replace(FORECAST, made_at=NOW - timedelta(hours=1))


class _Stored:
    """A source with one forecast for every user; an exception is raised."""

    def __init__(self, forecast: Any) -> None:
        self.forecast = forecast
        self.asked: list[Any] = []

    def find(self, user_id: Any) -> Forecast | None:
        self.asked.append(user_id)
        if isinstance(self.forecast, Exception):
            raise self.forecast
        found: Forecast | None = self.forecast
        return found


@every_kind
def test_a_live_answer_has_no_reason(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(), request_id="request-7")
    assert result.reason is None
    assert (result.request_id, triton.request_ids) == ("request-7", ["request-7"])
    given = kind.arguments[0] is FORECAST
    assert result.source == ("caller" if given else "live")
    assert result.age_s is None if given else 0 <= result.age_s < 10


@every_live_kind
def test_a_stored_forecast_replaces_the_live_one(triton: FakeTriton, kind: Kind) -> None:
    answer = triton.answer
    triton.answer = lambda model, asked: (
        answer(model, asked) if model == contract.PRIOR_HEAD else {}  # the engine is down
    )
    stored = _Stored(STORED)
    result = kind.ask(triton.config(fail_open=True), user_id=17, parts={"stored": stored})
    assert stored.asked == [17]
    assert (result.source, result.reason) == ("stored", "bad_answer")
    assert 3600 <= result.age_s <= (datetime.now(UTC) - NOW).total_seconds() + 3600
    if kind.ranks:
        assert result.logits.tolist() == ADJUSTED
    else:
        assert result.advertisers == FORECAST.advertisers


@every_live_kind
@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(None, id="unknown user"),
        pytest.param(OSError("disk"), id="failing source"),
        pytest.param("a forecast", id="text"),
        pytest.param(replace(STORED, made_at=NOW - timedelta(days=3)), id="too old"),
        pytest.param(replace(STORED, made_at=NOW + timedelta(days=60 * 365)), id="future"),
        pytest.param(replace(STORED, made_at="yesterday"), id="time as text"),  # type: ignore[arg-type]
        pytest.param(replace(STORED, made_at=None), id="no time"),
        pytest.param(replace(STORED, missing_mass=float("nan")), id="NaN"),
        pytest.param(replace(STORED, missing_mass=None), id="no mass"),  # type: ignore[arg-type]
        pytest.param(replace(STORED, advertisers=({"advertiser_id": 7},)), id="dicts"),  # type: ignore[arg-type]
        pytest.param(replace(STORED, advertisers=()), id="empty"),
    ],
)
def test_an_unusable_stored_forecast_is_ignored(
    triton: FakeTriton, kind: Kind, stored: Any
) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    result = kind.ask(triton.config(fail_open=True), user_id="u", parts={"stored": _Stored(stored)})
    assert_harmless(result)
    assert result.reason is Reason.BAD_ANSWER


@pytest.mark.parametrize("is_for_today", [False, True], ids=["clocks differ", "for today"])
def test_a_stored_forecast_may_be_slightly_in_the_future(
    triton: FakeTriton, is_for_today: bool
) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    now = datetime.now(UTC)
    last_moment = now.replace(hour=23, minute=59, second=59, microsecond=999_999)
    made_at = last_moment if is_for_today else now + CLOCK_SKEW / 2
    stored = _Stored(replace(STORED, made_at=made_at))
    with RetrievalClient(triton.config(fail_open=True), stored=stored) as client:
        found = client.forecast(USER, user_id="u")
    assert (found.source, found.age_s) == ("stored", 0.0)


def test_exclusions_and_k_apply_to_a_stored_forecast(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    both = (*FORECAST.advertisers, replace(FORECAST.advertisers[0], advertiser_id=8, log_prob=-2.0))
    stored = _Stored(replace(STORED, advertisers=both))
    with RetrievalClient(triton.config(fail_open=True), stored=stored) as client:
        found = client.forecast(USER, user_id="u", excluded_advertiser_ids=[7])
        first = client.forecast(USER, 1, user_id="u")
    assert [item.advertiser_id for item in found.advertisers] == [8]
    assert found.missing_mass == pytest.approx(0.25 + FORECAST.advertisers[0].probability)
    assert [item.advertiser_id for item in first.advertisers] == [7]


def test_time_is_reserved_for_a_stored_forecast(triton: FakeTriton) -> None:
    answer = triton.answer

    def slow_engine(model: str, asked: Any) -> Any:
        if model == contract.ADVERTISER_RANKING:
            triton.release.wait(5)
        return answer(model, asked)

    triton.answer = slow_engine
    config = triton.config(fail_open=True, deadline_s=1.0, stored_reserve_s=0.8)
    with RankingClient(config, stored=_Stored(STORED)) as client:
        ranking = client.score(USER, CANDIDATES, BASE, user_id="u")
    assert (ranking.source, ranking.reason, ranking.applied) == ("stored", "deadline", True)


@every_live_kind
def test_a_slow_source_does_not_delay_the_call(triton: FakeTriton, kind: Kind) -> None:
    class Slow:
        def find(self, user_id: Any) -> Forecast | None:
            triton.release.wait(3)
            return STORED

    triton.status = grpc.StatusCode.INTERNAL
    with kind.open(triton.config(fail_open=True), stored=Slow()) as client:
        began = time.monotonic()
        result = client.ask(user_id="u", deadline_s=0.2)
        took = time.monotonic() - began
        triton.release.set()
    assert_harmless(result)
    assert took < 1


@pytest.mark.parametrize(
    ("forecast", "reason", "calls"),
    [
        (replace(FORECAST, bundle_id="other"), Reason.OTHER_BUNDLE, 1),
        (Forecast.none(Reason.DEADLINE), Reason.DEADLINE, 0),
    ],
    ids=["another bundle's", "empty"],
)
def test_a_forecast_that_cannot_be_applied_leaves_the_base_logits(
    triton: FakeTriton, forecast: Forecast, reason: Reason, calls: int
) -> None:
    with RankingClient(triton.config(fail_open=True)) as client:
        ranking = client.score(forecast, CANDIDATES, BASE)
    assert_harmless(ranking)
    assert (ranking.reason, len(triton.calls)) == (reason, calls)


@every_kind
def test_shadow_mode_asks_and_applies_nothing(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(shadow=True))
    assert result.reason is Reason.SHADOW
    assert len(triton.calls) == 1
    if kind.ranks:
        assert result.logits.tolist() == BASE
        assert result.adjusted_logits.tolist() == ADJUSTED
        row = result.to_log(request="r")[0]
        logged = row["applied"], row["logit"], row["adjusted_logit"]
        assert logged == (False, 0.1, pytest.approx(0.35))
    else:
        assert result.advertisers == ()
        assert [item.advertiser_id for item in result.withheld] == [7, 2**40, 3]
        assert result.to_log(user_id="u")["advertiser_ids"] == [7, 2**40, 3]


def test_a_shadow_forecast_is_never_applied(triton: FakeTriton) -> None:
    shadow = replace(FORECAST, advertisers=(), withheld=FORECAST.advertisers)
    with RankingClient(triton.config()) as client:
        ranking = client.score(shadow, CANDIDATES, BASE)
    assert ranking.logits.tolist() == BASE
    assert ranking.adjusted_logits.tolist() != BASE
