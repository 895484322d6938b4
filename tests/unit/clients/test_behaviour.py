"""What clients do beside failing: fall back, hold back, log, trace, cancel, come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adprior_client import (
    AsyncRankingClient,
    AsyncRetrievalClient,
    CancelledError,
    ClientConfig,
    ClientError,
    Forecast,
    ForecastRequest,
    InvalidArgumentError,
    RankingClient,
    Reason,
    RetrievalClient,
    ScoreRequest,
)
from adprior_client.stored.forecast_time import CLOCK_SKEW
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

pytest_plugins = ("support.fake_triton",)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
LIVE_KINDS = [kind for kind in KINDS if kind.arguments[0] is USER]
ADJUSTED = pytest.approx([0.35, -1.45, 2.3], abs=1e-7)
NOW = datetime.now(UTC)
STORED = replace(FORECAST, made_at=NOW - timedelta(hours=1))


class _Stored:
    """A source of one forecast, for every user; or one that fails."""

    def __init__(self, forecast: Forecast | Exception | None) -> None:
        self.forecast = forecast
        self.asked: list[Any] = []

    def find(self, user_id: Any) -> Forecast | None:
        self.asked.append(user_id)
        if isinstance(self.forecast, Exception):
            raise self.forecast
        return self.forecast


@pytest.fixture
def two(triton: FakeTriton) -> Iterator[tuple[FakeTriton, FakeTriton]]:
    other = FakeTriton().start()
    yield triton, other
    other.stop()


# --- sources --------------------------------------------------------------------------------------
@every_kind
def test_a_live_answer_says_so(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(), request_id="request-7")
    assert result.reason is None
    assert result.request_id == "request-7"
    assert triton.request_ids == ["request-7"]
    given = kind.arguments[0] is FORECAST
    assert result.source == ("caller" if given else "live")
    assert result.age_s is None if given else 0 <= result.age_s < 10


@pytest.mark.parametrize("kind", LIVE_KINDS, ids=lambda kind: kind.name)
def test_a_stored_forecast_stands_in(triton: FakeTriton, kind: Kind) -> None:
    answer = triton.answer

    def only_the_head(model: str, asked: Any) -> Any:
        return answer(model, asked) if model == contract.PRIOR_HEAD else {}

    triton.answer = only_the_head  # the engine is down
    stored = _Stored(STORED)
    result = kind.ask(triton.config(fail_open=True), user_id=17, parts={"stored": stored})
    assert stored.asked == [17]
    assert (result.source, result.reason) == ("stored", "bad_answer")
    assert 3600 <= result.age_s <= (datetime.now(UTC) - NOW).total_seconds() + 3600
    if kind.ranks:
        assert result.logits.tolist() == ADJUSTED
    else:
        assert result.advertisers == FORECAST.advertisers


@pytest.mark.parametrize("kind", LIVE_KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "stored",
    [
        None,
        OSError("disk"),
        replace(STORED, made_at=NOW - timedelta(days=3)),
        replace(STORED, missing_mass=float("nan")),
        replace(STORED, missing_mass=None),  # type: ignore[arg-type]
        replace(STORED, advertisers=({"advertiser_id": 7},)),  # type: ignore[arg-type]
        replace(STORED, made_at=NOW + timedelta(days=60 * 365)),
        replace(STORED, made_at="yesterday"),  # type: ignore[arg-type]
        replace(STORED, made_at=None),
        replace(STORED, advertisers=()),
        "a forecast",
    ],
    ids=[
        "unknown user",
        "failing source",
        "too old",
        "a mass of NaN",
        "no mass",
        "dicts",
        "from the future",
        "made in words",
        "of no age",
        "empty",
        "no forecast",
    ],
)
def test_without_a_good_stored_forecast_there_is_none(
    triton: FakeTriton, kind: Kind, stored: Any
) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    result = kind.ask(triton.config(fail_open=True), user_id="u", parts={"stored": _Stored(stored)})
    assert_harmless(result)
    assert result.reason is Reason.BAD_ANSWER


def test_clocks_may_differ_a_little(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    ahead = _Stored(replace(STORED, made_at=datetime.now(UTC) + CLOCK_SKEW / 2))
    with RetrievalClient(triton.config(fail_open=True), stored=ahead) as client:
        found = client.forecast(USER, user_id="u")
    assert (found.source, found.age_s) == ("stored", 0.0)


def test_a_stored_forecast_for_today_is_used(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    last = datetime.now(UTC).replace(hour=23, minute=59, second=59, microsecond=999_999)
    with RetrievalClient(
        triton.config(fail_open=True), stored=_Stored(replace(STORED, made_at=last))
    ) as client:
        assert client.forecast(USER, user_id="u").source == "stored"


def test_exclusions_and_k_hold_for_a_stored_forecast(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    both = (*FORECAST.advertisers, replace(FORECAST.advertisers[0], advertiser_id=8, log_prob=-2.0))
    stored = _Stored(replace(STORED, advertisers=both))
    with RetrievalClient(triton.config(fail_open=True), stored=stored) as client:
        found = client.forecast(USER, user_id="u", excluded_advertiser_ids=[7])
        first = client.forecast(USER, 1, user_id="u")
    assert [item.advertiser_id for item in found.advertisers] == [8]
    assert found.missing_mass == pytest.approx(0.25 + FORECAST.advertisers[0].probability)
    assert [item.advertiser_id for item in first.advertisers] == [7]


def test_time_is_kept_for_a_stored_forecast(triton: FakeTriton) -> None:
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


def test_another_bundles_forecast_is_not_applied(triton: FakeTriton) -> None:
    with RankingClient(triton.config(fail_open=True)) as client:
        ranking = client.score(replace(FORECAST, bundle_id="other"), CANDIDATES, BASE)
    assert_harmless(ranking)
    assert ranking.reason is Reason.OTHER_BUNDLE


def test_an_empty_forecast_passes_its_reason_on(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        ranking = client.score(Forecast.none(Reason.DEADLINE), CANDIDATES, BASE)
    assert_harmless(ranking)
    assert (ranking.reason, triton.calls) == (Reason.DEADLINE, [])


# --- experiments ----------------------------------------------------------------------------------
@every_kind
def test_a_control_group_is_not_asked_about(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(), treatment=False)
    assert_harmless(result)
    assert (result.reason, triton.calls) == (Reason.CONTROL, [])


@every_kind
def test_the_kill_switch_is_read_at_each_call(
    triton: FakeTriton, kind: Kind, tmp_path: Path
) -> None:
    switch = tmp_path / "off"
    config = triton.config(kill_switch_file=str(switch))
    assert kind.ask(config).reason is None
    switch.touch()
    result = kind.ask(config)
    assert_harmless(result)
    assert result.reason is Reason.KILL_SWITCH
    assert kind.ask(triton.config(), parts={"kill_switch": lambda: True}).reason == "kill_switch"
    assert len(triton.calls) == 1


def test_a_kill_switch_that_fails_is_on(triton: FakeTriton) -> None:
    def broken() -> bool:
        raise RuntimeError

    with RankingClient(triton.config(), kill_switch=broken) as client:
        assert client.score(USER, CANDIDATES, BASE).reason is Reason.KILL_SWITCH


@every_kind
def test_shadow_mode_asks_and_applies_nothing(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(shadow=True))
    assert result.reason is Reason.SHADOW
    assert len(triton.calls) == 1
    if kind.ranks:
        assert result.logits.tolist() == BASE
        assert result.adjusted_logits.tolist() == ADJUSTED
        [row, *_] = result.to_log(request="r")
        assert (row["applied"], row["logit"], row["adjusted_logit"]) == (
            False,
            0.1,
            pytest.approx(0.35),
        )
    else:
        assert result.advertisers == ()
        assert [item.advertiser_id for item in result.withheld] == [7, 2**40, 3]
        assert result.to_log(user_id="u")["advertiser_ids"] == [7, 2**40, 3]


def test_a_shadow_forecast_is_not_applied_by_a_ranking_that_is_not_in_shadow(
    triton: FakeTriton,
) -> None:
    shadow = replace(FORECAST, advertisers=(), withheld=FORECAST.advertisers)
    with RankingClient(triton.config()) as client:
        ranking = client.score(shadow, CANDIDATES, BASE)
    assert ranking.logits.tolist() == BASE
    assert ranking.adjusted_logits.tolist() != BASE


def test_base_logits_off_the_catalogue_keep_every_bit(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        ranking = client.score(FORECAST, CANDIDATES, BASE)
    assert ranking.logits.tolist()[2] == BASE[2]
    assert ranking.base_logits.tolist() == BASE


# --- many -----------------------------------------------------------------------------------------
def test_many_are_asked_at_once_and_come_back_in_order(triton: FakeTriton) -> None:
    answer, lock = triton.answer, threading.Lock()
    now, most = 0, 0

    def count(model: str, asked: Any) -> Any:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.02)
        with lock:
            now -= 1
        return answer(model, asked)

    triton.answer = count
    requests = [
        ScoreRequest(subject=FORECAST, candidates=[number], base_logits=[0.5])
        for number in range(20)
    ]
    with RankingClient(triton.config()) as client:
        rankings = client.score_many(requests, max_concurrency=4)
        with pytest.raises(InvalidArgumentError, match="max_concurrency: found 0"):
            client.score_many(requests, max_concurrency=0)
    assert [ranking.advertiser_ids.tolist() for ranking in rankings] == [[n] for n in range(20)]
    assert 1 < most <= 4

    async def ask() -> list[Any]:
        async with AsyncRankingClient(triton.config()) as client:
            return await client.score_many(requests, max_concurrency=4)

    most = 0
    assert [r.advertiser_ids.tolist() for r in asyncio.run(ask())] == [[n] for n in range(20)]
    assert 1 < most <= 4


MANY = [
    (RetrievalClient, AsyncRetrievalClient, "forecast_many", ForecastRequest(user=USER)),
    (
        RankingClient,
        AsyncRankingClient,
        "score_many",
        ScoreRequest(subject=USER, candidates=CANDIDATES, base_logits=BASE),
    ),
]
many = pytest.mark.parametrize(
    ("blocking", "asynchronous", "method", "request_"), MANY, ids=["retrieval", "ranking"]
)


def _counted(request_: Any, taken: list[int], length: int = 40) -> Iterator[Any]:
    for number in range(length):
        taken.append(number)
        yield request_


@many
def test_requests_are_taken_when_there_is_a_place_for_them(
    triton: FakeTriton, blocking: Any, asynchronous: Any, method: str, request_: Any
) -> None:
    taken: list[int] = []
    with blocking(triton.config()) as client:

        def let_go() -> int:
            while len(triton.calls) < 3:
                time.sleep(0.005)
            held = len(taken)
            triton.release.set()
            return held

        triton.hold = True
        with ThreadPoolExecutor(1) as beside:
            held = beside.submit(let_go)
            found = getattr(client, method)(_counted(request_, taken), max_concurrency=3)
        assert (held.result(), len(found), len(taken)) == (3, 40, 40)

    async def ask() -> tuple[int, int]:
        async with asynchronous(triton.config()) as client:
            asked = getattr(client, method)(_counted(request_, taken), max_concurrency=3)
            task = asyncio.create_task(asked)
            while len(triton.calls) < 43:
                await asyncio.sleep(0.005)
            held = len(taken)
            triton.release.set()
            return held, len(await task)

    taken.clear()
    triton.release.clear()
    assert asyncio.run(ask()) == (3, 40)


@many
def test_after_a_wrong_request_no_other_is_taken(
    triton: FakeTriton, blocking: Any, asynchronous: Any, method: str, request_: Any
) -> None:
    def requests() -> Iterator[Any]:
        yield request_
        yield "no request"
        yield from _counted(request_, taken)

    async def ask() -> None:
        async with asynchronous(triton.config()) as client:
            await getattr(client, method)(requests(), max_concurrency=1)

    taken: list[int] = []
    with (
        blocking(triton.config()) as client,
        pytest.raises(InvalidArgumentError, match="requests: found str"),
    ):
        getattr(client, method)(requests(), max_concurrency=1)
    with pytest.raises(InvalidArgumentError, match="requests: found str"):
        asyncio.run(ask())
    assert taken == []
    assert len(triton.calls) == 2


def test_one_wrong_of_many_is_the_callers_error(triton: FakeTriton) -> None:
    good = ForecastRequest(user=USER)
    wrong: dict[str, Any] = {
        "k: found 0": ForecastRequest(user=USER, k=0),
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


# --- cancelling, closing, coming back -------------------------------------------------------------
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


@pytest.mark.parametrize("fail_open", [True, False])
def test_closing_cancels_what_is_under_way(triton: FakeTriton, fail_open: bool) -> None:
    triton.hold = True
    client = RankingClient(triton.config(fail_open=fail_open))
    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append(client.score(USER, CANDIDATES, BASE))
        except ClientError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not triton.calls:
        time.sleep(0.01)
    client.close()
    thread.join(10)
    assert triton.cancelled.wait(5)
    if fail_open:
        assert_harmless(outcome[0])
        assert outcome[0].reason is Reason.CANCELLED
    else:
        assert isinstance(outcome[0], CancelledError)


@every_kind
def test_live_answers_return_after_an_outage_without_touching_the_client(kind: Kind) -> None:
    triton = FakeTriton().start()
    port = int(triton.url.rpartition(":")[2])
    config = triton.config(fail_open=True, health_interval_s=0.5, breaker_failures=2)

    def outage() -> None:
        triton.stop()

    def end_of_outage() -> None:
        FakeTriton.start(triton, port)

    def check(results: list[Any], waited_s: float) -> None:
        assert results[0].reason is None
        assert results[1].reason is Reason.UNAVAILABLE
        assert results[2].reason is None
        assert waited_s < 5

    if kind.is_async:
        asyncio.run(_live_again_async(kind, config, outage, end_of_outage, check))
    else:
        with kind.make(config) as client:
            ask = getattr(client, kind.method)
            results = [ask(*kind.arguments)]
            outage()
            results += [ask(*kind.arguments)]
            for _ in range(5):
                assert_harmless(ask(*kind.arguments))
            end_of_outage()
            began = time.monotonic()
            while (result := ask(*kind.arguments)).reason is not None:
                assert time.monotonic() < began + 10
                time.sleep(0.02)
            check([*results, result], time.monotonic() - began)
    triton.stop()


async def _live_again_async(
    kind: Kind, config: ClientConfig, outage: Any, end_of_outage: Any, check: Any
) -> None:
    async with kind.make(config) as client:
        ask = getattr(client, kind.method)
        results = [await ask(*kind.arguments)]
        await asyncio.to_thread(outage)
        results += [await ask(*kind.arguments)]
        for _ in range(5):
            assert_harmless(await ask(*kind.arguments))
        end_of_outage()
        began = time.monotonic()
        while (result := await ask(*kind.arguments)).reason is not None:
            assert time.monotonic() < began + 10
            await asyncio.sleep(0.02)
        check([*results, result], time.monotonic() - began)


# --- several servers ------------------------------------------------------------------------------
@every_kind
def test_a_user_stays_and_moves_only_when_their_server_is_down(
    two: tuple[FakeTriton, FakeTriton], kind: Kind
) -> None:
    config = replace(two[0].config(), urls=(two[0].url, two[1].url))
    kind.ask(config, times=6, user_id="u")
    mine, other = sorted(two, key=lambda server: -len(server.calls))
    assert (len(mine.calls), len(other.calls)) == (6, 0)
    mine.status = grpc.StatusCode.UNAVAILABLE
    assert kind.ask(config, times=3, user_id="u").reason is None
    assert len(other.calls) == 3


@every_kind
def test_a_server_that_says_it_is_not_ready_is_left_alone(
    two: tuple[FakeTriton, FakeTriton], kind: Kind
) -> None:
    two[0].ready = two[1].ready = False
    config = replace(
        two[0].config(fail_open=True, health_interval_s=0.05),
        urls=(two[0].url, two[1].url),
    )

    async def wait_async() -> Any:
        async with kind.make(config) as client:
            while (
                result := await getattr(client, kind.method)(*kind.arguments)
            ).reason is not Reason.BREAKER_OPEN:
                await asyncio.sleep(0.02)
            return result

    if kind.is_async:
        result = asyncio.run(asyncio.wait_for(wait_async(), 20))
    else:
        with kind.make(config) as client:
            while (
                result := getattr(client, kind.method)(*kind.arguments)
            ).reason is not Reason.BREAKER_OPEN:
                time.sleep(0.02)
    assert_harmless(result)


def test_a_forecast_goes_to_a_server_of_its_bundle(two: tuple[FakeTriton, FakeTriton]) -> None:
    bundles = {two[0].url: b"blue", two[1].url: b"green"}
    for server in two:
        answer, name = server.answer, bundles[server.url]
        changed = {contract.BUNDLE_ID: np.array([[name]], dtype=np.object_)}
        server.answer = lambda m, a, answer=answer, changed=changed: answer(m, a) | changed  # type: ignore[misc]
    config = replace(two[0].config(), urls=(two[0].url, two[1].url))
    with RankingClient(config) as client:
        for user in range(20):
            for bundle in ("blue", "green"):
                ranking = client.score(
                    replace(FORECAST, bundle_id=bundle), CANDIDATES, BASE, user_id=user
                )
                assert (ranking.reason, ranking.bundle_id) == (None, bundle)
    assert len(two[0].calls) + len(two[1].calls) <= 42  # once each server's bundle is known


# --- metadata, tracing ----------------------------------------------------------------------------
@every_kind
def test_metadata_goes_along_and_may_change(triton: FakeTriton, kind: Kind) -> None:
    tokens = iter(["one", "two"])
    config = triton.config(metadata=(("authorization", "Bearer x"),))
    kind.ask(config, times=2, parts={"metadata": lambda: {"x-token": next(tokens)}})
    assert [call["authorization"] for call in triton.metadata] == ["Bearer x", "Bearer x"]
    assert [call["x-token"] for call in triton.metadata] == ["one", "two"]


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@every_kind
def test_a_call_is_a_span_and_its_context_travels(
    triton: FakeTriton, kind: Kind, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    with trace.get_tracer("service").start_as_current_span("page view") as outer:
        kind.ask(triton.config(fail_open=True), user_id=SECRET)
    triton.status = grpc.StatusCode.INTERNAL
    kind.ask(triton.config(fail_open=True), user_id=SECRET)
    first, _, second = spans.get_finished_spans()
    assert first.name == ("adprior.score" if kind.ranks else "adprior.forecast")
    assert first.parent is not None
    assert first.parent.span_id == outer.get_span_context().span_id
    assert first.context is not None
    assert format(first.context.span_id, "016x") in triton.metadata[0]["traceparent"]
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["adprior.bundle_id"] == "bundle-1"
    assert second.attributes["adprior.reason"] == "bad_answer"
    assert SECRET not in "".join(span.to_json() for span in (first, second))


@every_kind
@pytest.mark.parametrize("said", [None, "bulk", "ranking"])
def test_a_call_says_who_goes_first(kind: Kind, triton: FakeTriton, said: str | None) -> None:
    own = contract.Priority.RANKING if kind.ranks else contract.Priority.RETRIEVAL
    expected = own if said is None else contract.Priority[said.upper()]
    kind.ask(triton.config(priority=said))
    assert triton.priorities == [expected]


@every_kind
def test_a_token_travels_along_and_is_not_shown(
    kind: Kind, triton: FakeTriton, tmp_path: Path
) -> None:
    token = "token-0123456789abcdef"
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    for config in (triton.config(token=token), triton.config(token_file=str(path))):
        kind.ask(config)
        assert triton.metadata[-1]["triton-grpc-protocol-inference-key"] == token
        assert token not in repr(config)
