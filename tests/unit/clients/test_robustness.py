"""What the caller's own code, hands and shutdown do to the clients, and the clients to them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    AsyncRankingClient,
    CancelledError,
    Event,
    Forecast,
    ForecastRequest,
    InvalidArgumentError,
    MetadataError,
    RankingClient,
    Reason,
    RetrievalClient,
    ScoreRequest,
    User,
)
from adprior_runtime import contract
from support.client_calls import (
    BASE,
    CANDIDATES,
    FORECAST,
    KINDS,
    SECRET,
    USER,
    Kind,
    assert_harmless,
)
from support.fake_triton import FakeTriton

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ("support.fake_triton",)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
LIVE_KINDS = [kind for kind in KINDS if kind.arguments[0] is USER]


# --- the caller's own functions -------------------------------------------------------------------
@every_kind
def test_metadata_that_cannot_be_made_is_no_servers_fault(triton: FakeTriton, kind: Kind) -> None:
    def broken() -> dict[str, str]:
        raise OSError(SECRET)

    functions: list[Callable[[], Any]] = [
        broken,
        lambda: {"Upper": "x"},
        lambda: {"a": "line\n"},
        lambda: None,
    ]
    for function in functions:
        config = triton.config(fail_open=True, breaker_failures=1)
        result = kind.ask(config, times=3, parts={"metadata": function})
        assert_harmless(result)
        assert result.reason is Reason.DENIED
        with pytest.raises(MetadataError) as caught:
            kind.ask(triton.config(), parts={"metadata": function})
        assert SECRET not in str(caught.value)
    assert triton.calls == []


@every_kind
@pytest.mark.parametrize("part", ["metadata", "kill_switch"])
def test_a_coroutine_function_is_refused_where_a_plain_one_is_meant(kind: Kind, part: str) -> None:
    async def function() -> bool:
        return False

    with pytest.raises(InvalidArgumentError, match=f"{part}: found a coroutine function"):
        kind.make("localhost:1", **{part: function})


@pytest.mark.parametrize("kind", LIVE_KINDS, ids=lambda kind: kind.name)
def test_a_slow_source_is_not_waited_for(triton: FakeTriton, kind: Kind) -> None:
    class Slow:
        def find(self, user_id: Any) -> Forecast | None:
            triton.release.wait(3)
            return replace(FORECAST, made_at=datetime.now(UTC))

    triton.status = grpc.StatusCode.INTERNAL
    client = kind.make(triton.config(fail_open=True), stored=Slow())
    ask = getattr(client, kind.method)
    began = time.monotonic()

    async def ask_async() -> Any:
        result = await ask(*kind.arguments, user_id="u", deadline_s=0.2)
        took = time.monotonic() - began
        triton.release.set()
        await client.close()
        return result, took

    if kind.is_async:
        result, took = asyncio.run(ask_async())
    else:
        result = ask(*kind.arguments, user_id="u", deadline_s=0.2)
        took = time.monotonic() - began
        triton.release.set()
        client.close()
    assert_harmless(result)
    assert took < 1


def test_tracing_that_fails_does_no_harm(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def inject(self, carrier: Any) -> None:
            raise RuntimeError

        def start_as_current_span(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError

    with RankingClient(triton.config()) as client:
        monkeypatch.setattr(client._telemetry, "_inject", Broken().inject)
        monkeypatch.setattr(client._telemetry, "_tracer", Broken())
        assert client.score(FORECAST, CANDIDATES, BASE).applied
        upper: Callable[[Any], None] = lambda found: found.update({"X-Amzn-Trace-Id": "1"})  # noqa: E731
        monkeypatch.setattr(client._telemetry, "_inject", upper)
        assert client.score(FORECAST, CANDIDATES, BASE).applied
    assert triton.metadata[-1]["x-amzn-trace-id"] == "1"


# --- shutdown -------------------------------------------------------------------------------------
@pytest.mark.parametrize("fail_open", [True, False])
def test_closing_cancels_what_is_under_way_in_asyncio(triton: FakeTriton, fail_open: bool) -> None:
    triton.hold = True

    async def close_early() -> Any:
        client = AsyncRankingClient(triton.config(fail_open=fail_open))
        task = asyncio.ensure_future(client.score(USER, CANDIDATES, BASE))
        while not triton.calls:
            await asyncio.sleep(0.01)
        await client.close()
        return await asyncio.gather(task, return_exceptions=True)

    [outcome] = asyncio.run(close_early())
    assert triton.cancelled.wait(5)
    if fail_open:
        assert_harmless(outcome)
        assert outcome.reason is Reason.CANCELLED
    else:
        assert isinstance(outcome, CancelledError)


@every_kind
def test_after_closing_nothing_is_raised_either(triton: FakeTriton, kind: Kind) -> None:
    async def ask_closed() -> Any:
        client = kind.make(triton.config(fail_open=True))
        await client.close()
        return await getattr(client, kind.method)(*kind.arguments)

    if kind.is_async:
        result = asyncio.run(ask_closed())
    else:
        client = kind.make(triton.config(fail_open=True))
        client.close()
        result = getattr(client, kind.method)(*kind.arguments)
    assert_harmless(result)
    assert result.reason is Reason.CANCELLED


def test_an_asyncio_client_stays_in_its_loop(triton: FakeTriton) -> None:
    client = AsyncRankingClient(triton.config())

    async def ask() -> Any:
        return await client.score(USER, CANDIDATES, BASE)

    async def ask_and_close() -> None:
        with pytest.raises(InvalidArgumentError, match="belongs to another event loop"):
            await ask()

    asyncio.run(ask())
    asyncio.run(ask_and_close())


# --- load -----------------------------------------------------------------------------------------
def test_an_overloaded_fleet_is_asked_so_often_and_with_pauses() -> None:
    fleet = [FakeTriton().start() for _ in range(5)]
    for server in fleet:
        server.status = grpc.StatusCode.RESOURCE_EXHAUSTED
    config = fleet[0].config(fail_open=True, max_attempts=3, initial_backoff_s=0.1)
    began = time.monotonic()
    with RankingClient(replace(config, urls=tuple(server.url for server in fleet))) as client:
        assert client.score(USER, CANDIDATES, BASE).reason is Reason.UNAVAILABLE
    assert sum(len(server.calls) for server in fleet) == 3
    assert 0.8 * 0.3 <= time.monotonic() - began < 2
    for server in fleet:
        server.stop()


def test_a_pause_never_outlasts_the_deadline() -> None:
    fleet = [FakeTriton().start() for _ in range(2)]
    for server in fleet:
        server.status = grpc.StatusCode.RESOURCE_EXHAUSTED
    config = fleet[0].config(fail_open=True, initial_backoff_s=5.0, max_backoff_s=5.0)
    began = time.monotonic()
    with RankingClient(replace(config, urls=tuple(server.url for server in fleet))) as client:
        ranking = client.score(USER, CANDIDATES, BASE, deadline_s=0.5)
    assert time.monotonic() - began < 0.5
    assert ranking.reason is Reason.UNAVAILABLE
    assert sum(len(server.calls) for server in fleet) == 1
    for server in fleet:
        server.stop()


def test_a_deadline_too_short_for_anyone_says_nothing_of_the_server(triton: FakeTriton) -> None:
    answer = triton.answer

    def slowly(model: str, asked: Any) -> Any:
        time.sleep(0.03)
        return answer(model, asked)

    triton.answer = slowly
    with RankingClient(triton.config(fail_open=True, breaker_failures=1)) as client:
        for _ in range(3):
            assert client.score(USER, CANDIDATES, BASE, deadline_s=0.005).reason == "deadline"
        assert client.score(USER, CANDIDATES, BASE, deadline_s=5).reason is None


# --- values ---------------------------------------------------------------------------------------
def test_columns_cannot_be_changed_by_accident(triton: FakeTriton) -> None:
    with RankingClient(triton.config(fail_open=True)) as client:
        good = client.score(FORECAST, CANDIDATES, BASE)
        triton.status = grpc.StatusCode.INTERNAL
        failed = client.score(FORECAST, CANDIDATES, BASE)
    for ranking in (good, failed):
        with pytest.raises(ValueError, match="read-only"):
            ranking.logits[0] = 7.0


def test_what_is_known_of_a_user_is_in_no_repr() -> None:
    event = Event(time="2024-05-30", action="buy", advertiser=SECRET, text=SECRET)
    user = User(profile={"note": SECRET}, history=[event], as_of="2024-05-31")
    things = (
        user,
        event,
        ForecastRequest(user=user, user_id=SECRET),
        ScoreRequest(subject=user, candidates=[], base_logits=[], user_id=SECRET),
    )
    assert SECRET not in repr(things)


def test_numpy_values_are_taken(triton: FakeTriton) -> None:
    number: Any = np.int64(3)
    seconds: Any = np.float32(5)
    masked: Any = np.ma.masked_array(CANDIDATES, [1, 0, 0])  # type: ignore[no-untyped-call]
    with RankingClient(triton.config()) as client:
        ids, logits = np.array(CANDIDATES), np.array(BASE, dtype=np.float32)
        ranking = client.score(FORECAST, ids, logits, user_id=number, deadline_s=seconds)
        assert ranking.applied
        with pytest.raises(InvalidArgumentError, match="found MaskedArray"):
            client.score(FORECAST, masked, BASE)


@pytest.mark.parametrize(
    "changed",
    [{"missing_mass": None}, {"request_id": None}, {"exact": "no"}, {"advertisers": ({},)}],
)
def test_a_forecast_of_wrong_types_is_the_callers_error(
    triton: FakeTriton, changed: dict[str, Any]
) -> None:
    with (
        RankingClient(triton.config(fail_open=True)) as client,
        pytest.raises(InvalidArgumentError, match="forecast"),
    ):
        client.score(replace(FORECAST, **changed), CANDIDATES, BASE)


@pytest.mark.parametrize(
    "ids", [[7, 7, 3], [7, 8, 5]], ids=["an advertiser twice", "an excluded one"]
)
def test_a_forecast_that_is_not_what_was_asked_is_a_bad_answer(
    triton: FakeTriton, ids: list[int]
) -> None:
    answer = triton.answer
    changed = {contract.ADVERTISER_IDS: np.array([ids])}
    triton.answer = lambda model, asked: answer(model, asked) | changed
    with RetrievalClient(triton.config(fail_open=True)) as client:
        forecast = client.forecast(USER, excluded_advertiser_ids=[5])
        more = client.forecast(USER, k=2)
    assert_harmless(forecast)
    assert (forecast.reason, more.reason) == (Reason.BAD_ANSWER, Reason.BAD_ANSWER)


def test_a_live_forecast_can_always_be_scored(triton: FakeTriton) -> None:
    answer = triton.answer
    rounded = {contract.LOG_PROBS: np.array([[5e-4, -9.0, -10.0]], dtype=np.float32)}
    triton.answer = lambda model, asked: (
        answer(model, asked) | (rounded if model == contract.ADVERTISER_RETRIEVAL else {})
    )
    with RetrievalClient(triton.config()) as retrieval, RankingClient(triton.config()) as ranking:
        assert ranking.score(retrieval.forecast(USER), CANDIDATES, BASE).applied
