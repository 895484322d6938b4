"""The blocking and the asyncio driver: batches, cancelling, closing, coming back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from adprior_client import (
    AsyncRankingClient,
    CancelledError,
    ForecastRequest,
    InvalidArgumentError,
    RankingClient,
    Reason,
    RetrievalClient,
    ScoreRequest,
)
from support.client_calls import (
    BASE,
    CANDIDATES,
    FORECAST,
    KINDS,
    USER,
    Kind,
    assert_harmless,
    every_kind,
)
from support.fake_triton import FakeTriton

# --- batches --------------------------------------------------------------------------------------
REQUESTS: dict[str, Any] = {
    "forecast": ForecastRequest(user=USER),
    "score": ScoreRequest(subject=USER, candidates=CANDIDATES, base_logits=BASE),
}
every_batch = pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.name)


def _many(kind: Kind) -> Kind:
    return replace(kind, method=f"{kind.method}_many", arguments=())


@pytest.mark.parametrize("kind", KINDS[4:], ids=lambda kind: kind.name)
def test_a_batch_is_asked_concurrently_and_keeps_its_order(triton: FakeTriton, kind: Kind) -> None:
    answer, lock = triton.answer, threading.Lock()
    now, peak = 0, 0

    def count(model: str, asked: Any) -> Any:
        nonlocal now, peak
        with lock:
            now, peak = now + 1, max(peak, now + 1)
        time.sleep(0.02)
        with lock:
            now -= 1
        return answer(model, asked)

    triton.answer = count
    requests = [
        ScoreRequest(subject=FORECAST, candidates=[number], base_logits=[0.5])
        for number in range(20)
    ]
    rankings = _many(kind).ask(triton.config(), requests=requests, max_concurrency=4)
    assert [ranking.advertiser_ids.tolist() for ranking in rankings] == [[n] for n in range(20)]
    assert 1 < peak <= 4
    with pytest.raises(InvalidArgumentError, match="max_concurrency: found 0"):
        _many(kind).ask(triton.config(), requests=requests, max_concurrency=0)


def _counted(request: Any, taken: list[int], length: int = 40) -> Iterator[Any]:
    for number in range(length):
        taken.append(number)
        yield request


@every_batch
def test_a_request_is_taken_when_a_call_is_free(triton: FakeTriton, kind: Kind) -> None:
    taken: list[int] = []

    def release_calls() -> int:
        while len(triton.calls) < 3:
            time.sleep(0.005)
        held = len(taken)
        triton.release.set()
        return held

    triton.hold = True
    requests = _counted(REQUESTS[kind.method], taken)
    with ThreadPoolExecutor(1) as beside:
        held = beside.submit(release_calls)
        found = _many(kind).ask(triton.config(), requests=requests, max_concurrency=3)
    assert (held.result(), len(found), len(taken)) == (3, 40, 40)


@every_batch
def test_after_a_wrong_request_no_other_is_taken(triton: FakeTriton, kind: Kind) -> None:
    taken: list[int] = []

    def requests() -> Iterator[Any]:
        yield REQUESTS[kind.method]
        yield "no request"
        yield from _counted(REQUESTS[kind.method], taken)

    with pytest.raises(InvalidArgumentError, match="requests: found str"):
        _many(kind).ask(triton.config(), requests=requests(), max_concurrency=1)
    assert (taken, len(triton.calls)) == ([], 1)


def test_one_wrong_request_raises(triton: FakeTriton) -> None:
    good = ForecastRequest(user=USER)
    wrong: dict[str, Any] = {
        "k: found 0": replace(good, k=0),
        "treatment: found int": ForecastRequest(user=USER, treatment=1),  # type: ignore[arg-type]
        "user_id: found float": ForecastRequest(user=USER, user_id=0.5),  # type: ignore[arg-type]
        "requests: found dict": {"user": USER},
    }
    with RetrievalClient(triton.config()) as client:
        for message, request in wrong.items():
            with pytest.raises(InvalidArgumentError, match=message):
                client.forecast_many([request, good])
        assert triton.calls == []
        assert len(client.forecast_many(good for _ in range(3))) == 3


# --- cancelling and closing -----------------------------------------------------------------------
def test_a_cancelled_task_is_cancelled_at_the_server(triton: FakeTriton) -> None:
    triton.hold = True

    async def give_up() -> None:
        async with AsyncRankingClient(triton.config()) as client:
            task = asyncio.ensure_future(client.score(USER, CANDIDATES, BASE))
            while not triton.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(triton.cancelled.wait, 5)

    asyncio.run(give_up())


def _close_during_a_call(triton: FakeTriton, client: RankingClient) -> Any:
    with ThreadPoolExecutor(1) as beside:
        future = beside.submit(client.score, USER, CANDIDATES, BASE)
        while not triton.calls:
            time.sleep(0.01)
        client.close()
        return future.exception(10) or future.result()


async def _close_during_a_call_async(triton: FakeTriton, client: AsyncRankingClient) -> Any:
    task = asyncio.ensure_future(client.score(USER, CANDIDATES, BASE))
    while not triton.calls:
        await asyncio.sleep(0.01)
    await client.close()
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    return outcome


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("fail_open", [True, False])
def test_closing_cancels_the_calls_under_way(
    triton: FakeTriton, fail_open: bool, is_async: bool
) -> None:
    triton.hold = True
    config = triton.config(fail_open=fail_open)
    if is_async:
        outcome = asyncio.run(_close_during_a_call_async(triton, AsyncRankingClient(config)))
    else:
        outcome = _close_during_a_call(triton, RankingClient(config))
    assert triton.cancelled.wait(5)
    if fail_open:
        assert_harmless(outcome)
        assert outcome.reason is Reason.CANCELLED
    else:
        assert isinstance(outcome, CancelledError)


@every_kind
def test_a_closed_client_does_not_raise(triton: FakeTriton, kind: Kind) -> None:
    with kind.open(triton.config(fail_open=True)) as client:
        client.close()
        client.close()
        result = client.ask()
    assert_harmless(result)
    assert result.reason is Reason.CANCELLED


def test_an_asyncio_client_belongs_to_one_loop(triton: FakeTriton) -> None:
    client = AsyncRankingClient(triton.config())

    async def ask() -> Any:
        return await client.score(USER, CANDIDATES, BASE)

    asyncio.run(ask())
    with pytest.raises(InvalidArgumentError, match="belongs to another event loop"):
        asyncio.run(ask())


def test_threads_may_share_a_client(triton: FakeTriton) -> None:
    with (
        RetrievalClient(triton.config(deadline_s=30)) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        found = list(threads.map(lambda _: client.forecast(USER), range(4)))
    assert [len(forecast.advertisers) for forecast in found] == [3, 3, 3, 3]


# --- outages --------------------------------------------------------------------------------------
@every_kind
def test_live_answers_return_after_an_outage(kind: Kind) -> None:
    triton = FakeTriton().start()
    port = int(triton.url.rpartition(":")[2])
    config = triton.config(fail_open=True, health_interval_s=0.5, breaker_failures=2)
    with kind.open(config) as client:
        assert client.ask().reason is None
        triton.stop()
        assert client.ask().reason is Reason.UNAVAILABLE
        for _ in range(5):
            assert_harmless(client.ask())
        triton.start(port)
        client.ask_until(None, seconds=5)
    triton.stop()
