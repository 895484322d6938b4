"""The clients against real tritonservers that are slow, stopped, killed, restarted or replaced."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_build.head.ranking_log import read_ranking_log
from adprior_client import (
    ClientConfig,
    Forecast,
    ParquetForecasts,
    Ranking,
    RankingClient,
    Reason,
    RetrievalClient,
)
from adprior_runtime import contract
from adprior_runtime.bundle import HEAD_FILE, Bundle
from adprior_runtime.cli import main
from adprior_runtime.head.features import CandidatePriors
from adprior_runtime.head.head import PriorHead
from adprior_runtime.server.tritonserver import TritonServer
from integration.metrics_page import MetricsPage, await_page, read_page
from support.client_calls import Kind, every_kind
from support.data_set import ADVERTISERS, user
from support.servers import build_repository, choose_ports, connect, start_server

pytestmark = pytest.mark.triton

CONTEXT = user(5)
CANDIDATES = [100, 107, 9999]
BASE = [0.1, -1.7, 2.3]


@pytest.fixture(scope="module")
def forecast(retrieval: RetrievalClient) -> Forecast:
    return retrieval.forecast(CONTEXT)


def _with_known_ids(kind: Kind, forecast: Forecast) -> Kind:
    """Return the kind of call with a user and candidates that the real server knows."""
    subject = forecast if isinstance(kind.arguments[0], Forecast) else CONTEXT
    return replace(kind, arguments=(subject, CANDIDATES, BASE) if kind.ranks else (subject,))


def _config(server: TritonServer, **settings: Any) -> ClientConfig:
    return ClientConfig(urls=(server.grpc_address,), **({"deadline_s": 30.0} | settings))


# --- one server -----------------------------------------------------------------------------------
@every_kind
def test_every_kind_of_client_gets_the_same_live_answer(
    server: TritonServer, forecast: Forecast, ranking: RankingClient, kind: Kind
) -> None:
    result = _with_known_ids(kind, forecast).ask(_config(server))
    assert result.reason is None
    if kind.ranks:
        given = kind.arguments[0]
        expected = ranking.score(
            forecast if isinstance(given, Forecast) else CONTEXT, CANDIDATES, BASE
        )
        assert result.applied
        np.testing.assert_allclose(result.logits, expected.logits, atol=1e-5)
        assert result.logits[2] == BASE[2]  # not in the catalogue: unchanged to the last bit
    else:
        ids = [item.advertiser_id for item in forecast.advertisers]
        assert [item.advertiser_id for item in result.advertisers] == ids


@every_kind
def test_a_deadline_is_kept(server: TritonServer, forecast: Forecast, kind: Kind) -> None:
    result = _with_known_ids(kind, forecast).ask(_config(server), deadline_s=1e-3)
    if kind.ranks:
        assert result.logits.tolist() == BASE
    assert result.reason is Reason.DEADLINE


def test_a_refusal_by_the_server_is_a_reason(server: TritonServer) -> None:
    too_long = user(profile={f"key{i}": f"{i}" * 60 for i in range(90)})
    with RankingClient(_config(server)) as client:
        ranking = client.score(too_long, CANDIDATES, BASE)
    assert ranking.logits.tolist() == BASE
    assert ranking.reason is Reason.REFUSED


def test_logged_rankings_are_read_back_unchanged(
    server: TritonServer, bundle: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    rankings: list[Ranking] = []
    with connect(server.grpc_address, fail_open=True) as (retrieval, client):
        for number in range(8):
            who = user(number)
            subject: Any = who if number % 2 else retrieval.forecast(who)
            ids = (100 + random.permutation(len(ADVERTISERS))[:6]).tolist()
            rankings.append(client.score(subject, ids, random.normal(size=6).tolist()))
            rows += rankings[-1].to_log(request=number)
        down = client.score(user(1), [100], [0.5], deadline_s=1e-4)
        rows += down.to_log(request=99)
    for row in rows:
        row["label"] = int(row["advertiser_id"] % 2)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    opened = Bundle.open(bundle)
    read = read_ranking_log(path, opened)
    assert (read.total, read.without_forecast, read.off_catalogue) == (49, 1, 0)
    # The head computes the served logits from the features that were read back.
    count = len(read.features)
    priors = CandidatePriors(
        log_probs=read.features[:, 0],
        statuses=np.where(read.features[:, 2] == 1, 0, 1).astype(np.uint8),
        features=read.features,
    )
    again = PriorHead(opened.path(HEAD_FILE)).adjust(read.base_logits, priors).logits
    served = np.concatenate([ranking.adjusted_logits for ranking in rankings])
    assert count == 48
    np.testing.assert_allclose(again, served, atol=1e-4)
    arguments = ["fit-head", "--logs", str(path), "--bundle", str(bundle)]
    assert main([*arguments, "--output", str(tmp_path / "head.onnx")]) == 0
    assert main(["bench", "quality", "--logs", str(path)]) == 0


def test_ranking_uses_a_stored_forecast_if_the_deadline_leaves_no_time_for_the_engine(
    server: TritonServer, retrieval: RetrievalClient, tmp_path: Path
) -> None:
    made_at = datetime.now(UTC) - timedelta(hours=5)
    row = replace(retrieval.forecast(CONTEXT), made_at=made_at).to_log(user_id="u")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "daily.parquet")
    stored = ParquetForecasts(tmp_path)
    config = _config(server, deadline_s=2.001, stored_reserve_s=2.0)
    with RankingClient(config, stored=stored) as client:
        ranking = client.score(CONTEXT, CANDIDATES, BASE, user_id="u")
    assert (ranking.source, ranking.reason, ranking.applied) == ("stored", "deadline", True)
    assert ranking.age_s is not None
    assert 5 * 3600 <= ranking.age_s < 5 * 3600 + 60


# --- outages --------------------------------------------------------------------------------------
def _seconds_until_live(client: RankingClient) -> float:
    began = time.monotonic()
    while client.score(CONTEXT, CANDIDATES, BASE, deadline_s=1.0).reason is not None:
        assert time.monotonic() < began + 30
    return time.monotonic() - began


def test_calls_to_a_stopped_server_take_no_longer_than_the_deadline(repository: Path) -> None:
    with start_server(repository) as server, RankingClient(_config(server)) as client:
        assert client.score(CONTEXT, CANDIDATES, BASE).reason is None
        os.killpg(server.process.pid, signal.SIGSTOP)
        try:
            reasons: Counter[Reason | None] = Counter()
            for _ in range(12):
                began = time.monotonic()
                result = client.score(CONTEXT, CANDIDATES, BASE, deadline_s=0.2)
                assert time.monotonic() - began < 0.2 + 0.3
                assert result.logits.tolist() == BASE
                reasons[result.reason] += 1
        finally:
            os.killpg(server.process.pid, signal.SIGCONT)
        assert reasons[Reason.DEADLINE] >= 5
        assert reasons[Reason.BREAKER_OPEN] >= 5
        assert _seconds_until_live(client) < 5


def test_a_client_reconnects_to_a_restarted_server(repository: Path) -> None:
    ports = choose_ports()
    url = f"127.0.0.1:{ports['grpc_port']}"
    with RankingClient(ClientConfig(urls=(url,), deadline_s=5)) as client:
        before = client.score(CONTEXT, CANDIDATES, BASE)
        assert before.reason is Reason.UNAVAILABLE
        with start_server(repository, **ports) as server:
            assert _seconds_until_live(client) < 5
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            result = client.score(CONTEXT, CANDIDATES, BASE)
            assert result.logits.tolist() == BASE
            assert result.reason in {Reason.UNAVAILABLE, Reason.BREAKER_OPEN}
        with start_server(repository, **ports):
            assert _seconds_until_live(client) < 5


def test_a_search_stops_once_its_caller_has_given_up(server: TritonServer) -> None:
    """Triton hands the deadline on to the engine, which counts the searches that it stopped."""

    def stopped(page: MetricsPage) -> float:
        name = "adprior_failed_requests_total"
        return page.total(name, model=contract.LLM_ENGINE, reason="cancelled")

    before = stopped(read_page(server))
    config = _config(server, deadline_s=0.01, breaker_failures=1_000_000)
    with RetrievalClient(config) as client, ThreadPoolExecutor(16) as pool:

        def have_given_up(page: MetricsPage) -> bool:
            list(pool.map(client.forecast, [CONTEXT] * 16))
            return stopped(page) > before

        await_page(server, have_given_up)


# --- two servers, two bundles ---------------------------------------------------------------------
@dataclass(slots=True)
class _Call:
    """One call during the rolling restart."""

    user: int
    began: float
    ended: float
    ranking: Ranking
    given: Forecast | None

    @property
    def is_live(self) -> bool:
        return self.given is None


@dataclass(slots=True)
class _Load:
    """Ranks for a few users, from several threads, until ``stop`` is set."""

    client: RankingClient
    forecasts: list[Forecast]
    calls: list[_Call] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, offset: int) -> None:
        number = offset
        while not self.stop.is_set():
            number += 1
            who = number % len(self.forecasts)
            given = None if number % 10 == 0 else self.forecasts[who]
            began = time.monotonic()
            try:
                ranking = self.client.score(
                    user(who) if given is None else given, CANDIDATES, BASE, user_id=who
                )
            except BaseException as error:  # noqa: BLE001  the test asserts that there is none
                self.raised.append(error)
                continue
            self.calls.append(_Call(who, began, time.monotonic(), ranking, given))


@pytest.fixture(scope="module")
def other_repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model and catalogue in another bundle, whose head changes nothing."""
    output = tmp_path_factory.mktemp("other") / "repository"
    return build_repository(bundle.with_name("first"), output, "--forecast-k", "9")


@dataclass(slots=True)
class _Place:
    """A repository and the ports on which it is served, also after a restart."""

    repository: Path
    ports: dict[str, Any] = field(default_factory=choose_ports)
    server: TritonServer | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports['grpc_port']}"

    def start(self) -> None:
        self.server = TritonServer.start(self.repository, **self.ports)

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()


@pytest.fixture
def both(repository: Path, other_repository: Path) -> Iterator[list[_Place]]:
    places = [_Place(repository), _Place(other_repository)]
    try:
        for place in places:
            place.start()
        yield places
    finally:
        for place in places:
            place.stop()


@pytest.mark.long_form
@pytest.mark.timeout(600)
def test_ten_thousand_rankings_survive_the_restart_of_one_server_after_the_other(
    both: list[_Place],
) -> None:
    urls = tuple(place.url for place in both)
    users, count = 16, 10_000
    expected = _reference(urls, users)
    config = ClientConfig(urls=urls, deadline_s=2.0)
    with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
        forecasts = [retrieval.forecast(user(who), user_id=who) for who in range(users)]
        home = [forecast.bundle_id for forecast in forecasts]
        assert len(set(home)) == 2
        load = _Load(ranking, forecasts)
        threads = [threading.Thread(target=load.run, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        outages = []
        for place in both:
            time.sleep(3)
            began = time.monotonic()
            place.stop()
            time.sleep(2)
            place.start()
            outages.append((began, time.monotonic()))
            time.sleep(5)
        while len(load.calls) < count and not load.raised:
            time.sleep(0.1)
        load.stop.set()
        for thread in threads:
            thread.join()
    assert load.raised == []
    assert len(load.calls) >= count
    for call in load.calls:
        _assert_from_one_bundle(call, expected)
        if all(call.ended < began or call.began > ended + 5 for began, ended in outages):
            assert call.ranking.reason is None, (call.ranking.reason, call.is_live)
            assert call.ranking.bundle_id == home[call.user]
    reasons = Counter(call.ranking.reason for call in load.calls)
    counts = {str(reason): number for reason, number in reasons.items()}
    print(len(load.calls), "calls:", counts, file=sys.stderr)
    live = [call for call in load.calls if call.is_live and call.ranking.bundle_id]
    assert any(call.ranking.bundle_id != home[call.user] for call in live)  # some failed over
    assert reasons[None] > count / 3


def _reference(urls: tuple[str, ...], users: int) -> dict[str, dict[Any, list[float]]]:
    """Return each bundle's logits by user and whether the call is live, from its own server."""
    expected: dict[str, dict[Any, list[float]]] = {}
    for url in urls:
        with connect(url) as (retrieval, ranking):
            for who in range(users):
                forecast = retrieval.forecast(user(who))
                answers = expected.setdefault(forecast.bundle_id, {})
                live = ranking.score(user(who), CANDIDATES, BASE)
                answers[who, True] = live.logits.tolist()
                answers[who, False] = ranking.score(forecast, CANDIDATES, BASE).logits.tolist()
    assert len(expected) == 2
    return expected


def _assert_from_one_bundle(call: _Call, expected: dict[str, dict[Any, list[float]]]) -> None:
    """Assert that an answer comes from one bundle, or is the base logits with a reason."""
    ranking = call.ranking
    if not ranking.applied:
        assert ranking.logits.tolist() == BASE
        assert ranking.reason is not None
        return
    if call.given is not None:
        assert ranking.bundle_id == call.given.bundle_id
    np.testing.assert_allclose(
        ranking.logits, expected[ranking.bundle_id][call.user, call.is_live], atol=1e-4
    )
