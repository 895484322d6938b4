"""The clients against real tritonservers that are slow, stopped, killed, restarted, exchanged."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

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
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from support.client_calls import Kind, every_kind
from support.data_set import ADVERTISERS, user
from support.servers import start_server

pytestmark = pytest.mark.triton

CONTEXT = user(5)
CANDIDATES = [100, 107, 9999]
BASE = [0.1, -1.7, 2.3]


@pytest.fixture(scope="module")
def demo_bundle() -> Path:
    return Path(__file__).parents[2] / "demo" / "bundle"


@pytest.fixture(scope="module")
def forecast(retrieval: RetrievalClient) -> Forecast:
    return retrieval.forecast(CONTEXT)


def _asked(kind: Kind, forecast: Forecast) -> Kind:
    """The same kind of call, about users and candidates that the real server knows."""
    subject = forecast if isinstance(kind.arguments[0], Forecast) else CONTEXT
    return replace(kind, arguments=(subject, CANDIDATES, BASE) if kind.ranks else (subject,))


def _config(server: TritonServer, **settings: Any) -> ClientConfig:
    return ClientConfig(urls=(server.grpc_address,), **({"deadline_s": 30.0} | settings))


# --- one server -----------------------------------------------------------------------------------
@every_kind
def test_every_kind_of_client_gets_the_same_live_answer(
    server: TritonServer, forecast: Forecast, ranking: RankingClient, kind: Kind
) -> None:
    result = _asked(kind, forecast).ask(_config(server))
    assert result.reason is None
    if kind.ranks:
        given = kind.arguments[0]
        expected = ranking.score(
            forecast if isinstance(given, Forecast) else CONTEXT, CANDIDATES, BASE
        )
        assert result.applied
        np.testing.assert_allclose(result.logits, expected.logits, atol=1e-5)
        assert result.logits[2] == BASE[2]  # off the catalogue, to the last bit
    else:
        ids = [item.advertiser_id for item in forecast.advertisers]
        assert [item.advertiser_id for item in result.advertisers] == ids


@every_kind
def test_a_deadline_is_kept(server: TritonServer, forecast: Forecast, kind: Kind) -> None:
    asked = _asked(kind, forecast)
    result = asked.ask(_config(server), deadline_s=1e-3)
    if kind.ranks:
        assert result.logits.tolist() == BASE
    assert result.reason is Reason.DEADLINE


def test_what_only_the_server_can_refuse_is_a_reason(server: TritonServer) -> None:
    too_long = user(profile={f"key{i}": f"{i}" * 60 for i in range(90)})
    with RankingClient(_config(server)) as client:
        ranking = client.score(too_long, CANDIDATES, BASE)
    assert ranking.logits.tolist() == BASE
    assert ranking.reason is Reason.REFUSED


def test_rankings_are_logged_and_read_back_as_they_were_made(
    server: TritonServer, bundle: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    rankings: list[Ranking] = []
    with RetrievalClient(_config(server)) as retrieval, RankingClient(_config(server)) as client:
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
    # The head, given the features that were read back, says what was served.
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


def test_a_stored_forecast_is_ranked_with_while_the_engine_has_no_time(
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


def test_a_server_that_stands_still_costs_the_deadline_and_comes_back(repository: Path) -> None:
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


def test_a_server_that_is_killed_comes_back_on_its_port(repository: Path) -> None:
    grpc_port, http_port, metrics_port = free_ports(3)
    ports: dict[str, Any] = {
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
    }
    with RankingClient(ClientConfig(urls=(f"127.0.0.1:{grpc_port}",), deadline_s=5)) as client:
        before = client.score(CONTEXT, CANDIDATES, BASE)
        assert before.reason is Reason.UNAVAILABLE
        with TritonServer.start(repository, **ports) as server:
            assert _seconds_until_live(client) < 5
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            result = client.score(CONTEXT, CANDIDATES, BASE)
            assert result.logits.tolist() == BASE
            assert result.reason in {Reason.UNAVAILABLE, Reason.BREAKER_OPEN}
        with TritonServer.start(repository, **ports):
            assert _seconds_until_live(client) < 5


def test_a_search_that_nobody_waits_for_any_more_stops(tmp_path: Path, demo_bundle: Path) -> None:
    """Seen from outside: the engine computes but a part of what it would for who waits."""
    repository = tmp_path / "repository"
    build = ["build", "--bundle", str(demo_bundle), "--output", str(repository)]
    assert main([*build, "--max-top-k", "1000"]) == 0
    with start_server(repository) as server, RetrievalClient(_config(server)) as client:
        assert client.forecast(CONTEXT).reason is None
        before = _engine_seconds(server)
        assert client.forecast(CONTEXT, 1000).reason is None
        whole = _engine_seconds(server) - before
        assert client.forecast(CONTEXT, 1000, deadline_s=whole / 10).reason is Reason.DEADLINE
        assert client.forecast(CONTEXT, 1).reason is None  # one engine: the other one is over
        assert _engine_seconds(server) - before - whole < whole / 2


def _engine_seconds(server: TritonServer) -> float:
    with urlopen(f"http://{server.metrics_address}/metrics") as response:
        text = response.read().decode()
    name = f'nv_inference_compute_infer_duration_us{{model="{contract.LLM_ENGINE}"'
    found = re.search(rf"{re.escape(name)}[^}}]*}} (\d+)", text)
    assert found
    return int(found[1]) / 1e6


# --- two servers, two bundles ---------------------------------------------------------------------
@dataclass(slots=True)
class _Seen:
    """One call of the rolling restart, and when it began and ended."""

    user: int
    live: bool
    began: float
    ended: float
    ranking: Ranking
    given: Forecast | None


@dataclass(slots=True)
class _Load:
    """Ranks for a few users, from several threads, until told to stop."""

    client: RankingClient
    forecasts: list[Forecast]
    seen: list[_Seen] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, offset: int) -> None:
        number = offset
        while not self.stop.is_set():
            number += 1
            who, live = number % len(self.forecasts), number % 10 == 0
            given = None if live else self.forecasts[who]
            began = time.monotonic()
            try:
                ranking = self.client.score(
                    user(who) if given is None else given, CANDIDATES, BASE, user_id=who
                )
            except BaseException as error:  # noqa: BLE001  that none is raised is the test
                self.raised.append(error)
                continue
            self.seen.append(_Seen(who, live, began, time.monotonic(), ranking, given))


@pytest.fixture(scope="module")
def other_repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model and catalogue under another bundle id, with a head that changes nothing."""
    output = tmp_path_factory.mktemp("other") / "repository"
    first = bundle.with_name("first")
    build = ["build", "--bundle", str(first), "--output", str(output), "--forecast-k", "9"]
    assert main(build) == 0
    return output


@pytest.fixture
def both(repository: Path, other_repository: Path) -> Iterator[list[dict[str, Any]]]:
    places: list[dict[str, Any]] = []
    for path in (repository, other_repository):
        grpc_port, http_port, metrics_port = free_ports(3)
        ports = {"grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port}
        places.append({"ports": ports, "repository": path, "url": f"127.0.0.1:{grpc_port}"})
    try:
        for place in places:
            place["server"] = TritonServer.start(place["repository"], **place["ports"])
        yield places
    finally:
        for place in places:
            if "server" in place:
                place["server"].stop()


@pytest.mark.long_form
@pytest.mark.timeout(600)
def test_ten_thousand_rankings_over_two_servers_that_are_restarted_in_turn(
    both: list[dict[str, Any]],
) -> None:
    urls = tuple(place["url"] for place in both)
    users, calls = 16, 10_000
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
        down = []  # from when to when each server was away, and which bundle it had
        for place, bundle_id in zip(both, sorted(set(home), key=_order_of(expected)), strict=True):
            time.sleep(3)
            began = time.monotonic()
            place["server"].stop()
            time.sleep(2)
            place["server"] = TritonServer.start(place["repository"], **place["ports"])
            down.append((began, time.monotonic(), bundle_id))
            time.sleep(5)
        while len(load.seen) < calls and not load.raised:
            time.sleep(0.1)
        load.stop.set()
        for thread in threads:
            thread.join()
    assert load.raised == []
    assert len(load.seen) >= calls
    for seen in load.seen:
        _assert_whole(seen, expected)
        settled = all(seen.ended < began or seen.began > ended + 5 for began, ended, _ in down)
        if settled:
            assert seen.ranking.reason is None, (seen.ranking.reason, seen.live)
            assert seen.ranking.bundle_id == home[seen.user]
    reasons = Counter(seen.ranking.reason for seen in load.seen)
    counts = {str(reason): count for reason, count in reasons.items()}
    print(len(load.seen), "calls:", counts, file=sys.stderr)
    moved = [seen for seen in load.seen if seen.live and seen.ranking.bundle_id]
    assert any(seen.ranking.bundle_id != home[seen.user] for seen in moved)  # they did fail over
    assert reasons[None] > calls / 3


def _reference(urls: tuple[str, ...], users: int) -> dict[str, dict[Any, list[float]]]:
    """Each bundle's own answers, live and with its own forecasts, asked of its server alone."""
    expected: dict[str, dict[Any, list[float]]] = {}
    for url in urls:
        config = ClientConfig(urls=(url,), deadline_s=30, fail_open=False)
        with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
            for who in range(users):
                forecast = retrieval.forecast(user(who))
                answers = expected.setdefault(forecast.bundle_id, {})
                live = ranking.score(user(who), CANDIDATES, BASE)
                answers[who, True] = live.logits.tolist()
                answers[who, False] = ranking.score(forecast, CANDIDATES, BASE).logits.tolist()
    assert len(expected) == 2
    return expected


def _order_of(expected: dict[str, Any]) -> Any:
    return list(expected).index


def _assert_whole(seen: _Seen, expected: dict[str, dict[Any, list[float]]]) -> None:
    """An answer is all one bundle's, or none at all."""
    ranking = seen.ranking
    if not ranking.applied:
        assert ranking.logits.tolist() == BASE
        assert ranking.reason is not None
        return
    if seen.given is not None:
        assert ranking.bundle_id == seen.given.bundle_id
    np.testing.assert_allclose(
        ranking.logits, expected[ranking.bundle_id][seen.user, seen.live], atol=1e-4
    )
