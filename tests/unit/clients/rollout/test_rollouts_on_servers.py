"""A rollout below clients under load, on fake servers with real pages of metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from adprior_client.commands import rollout
from support.client_calls import run_command
from support.fake_triton_with_metrics import (
    POPULAR,
    FakeTritonWithMetrics,
    running_with_metrics,
)
from support.following_load import Load
from support.processes import await_true
from support.server_names import write_servers

Servers = list[FakeTritonWithMetrics]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with running_with_metrics("blue", "blue", "green") as running:
        yield running


@contextmanager
def _loaded(path: Path, servers: Servers) -> Iterator[Load]:
    with Load(write_servers(path, [server.url for server in servers[:2]])) as load:
        await_true(lambda: load.reasons.total() > 20)
        yield load


def _roll_out(path: Path, servers: Servers, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = run_command(
        rollout,
        *("--servers", str(path), "--canary", servers[2].url, "--json"),
        *("--metrics", *(f"{server.url}={server.metrics_address}" for server in servers)),
        *("--steps", "0.2", "0.5", "--hold", "1.5s", "--longest", "200s", "--look", "0.1s"),
        *("--min-requests", "30", "--max-latency-ratio", "4", "--max-p95-ratio", "4"),
        # A loaded machine counts few requests in this time: limits that they can decide.
        *("--max-error-increase", "0.2", "--max-exact-drop", "0.3", "--max-psi", "0.5"),
    )
    return code, json.loads(capsys.readouterr().out)


def test_a_good_canary_is_promoted(
    tmp_path: Path, servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "servers"
    with _loaded(path, servers) as load:
        code, printed = _roll_out(path, servers, capsys)
        assert (code, printed["state"]) == (0, "promoted")
        load.assert_all_follow({servers[2].url})
    assert [step["share"] for step in printed["steps"]] == [0.2, 0.5]
    for step in printed["steps"]:
        assert {rule["verdict"] for rule in step["rules"]} == {"kept"}
        stable, canary = step["requests"]["stable"], step["requests"]["canary"]
        assert canary / (canary + stable) == pytest.approx(step["share"], abs=0.1)


def test_a_rollout_that_is_taken_over_prints_its_steps(
    tmp_path: Path, servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "servers"

    def take_over() -> None:
        await_true(lambda: "canary=0.5" in path.read_text())
        path.write_text(f"{servers[0].url}\n")

    with _loaded(path, servers):
        thread = threading.Thread(target=take_over)
        thread.start()
        code, printed = _roll_out(path, servers, capsys)
        thread.join()
    assert (code, printed["state"]) == (5, "taken over")
    assert printed["reason"] == f"{path}: somebody else has changed it; this rollout ends"
    assert [(step["share"], step["outcome"]) for step in printed["steps"]] == [(0.2, "passed")]


def _stop_after_calls(canary: FakeTritonWithMetrics) -> None:
    await_true(lambda: len(canary.calls) >= 3)
    canary.stop()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("slow", "broken: mean time, p95 of searches"),
        ("slow tail", "broken: p95 of searches"),
        ("drifts", "broken: drift"),
        ("fails", "broken: error rate"),
        ("dies", "lost: http"),
    ],
)
def test_a_bad_canary_is_rolled_back_and_costs_no_forecast(
    tmp_path: Path,
    servers: Servers,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    reason: str,
) -> None:
    path, (*stable, canary) = tmp_path / "servers", servers
    if fault == "slow":
        canary.delay_s = 0.2
    elif fault == "slow tail":
        canary.tail_s = 0.15
    elif fault == "drifts":
        canary.bins = POPULAR[::-1]
    elif fault == "fails":
        canary.status = grpc.StatusCode.UNAVAILABLE
    with _loaded(path, servers) as load:
        if fault == "dies":
            threading.Thread(target=_stop_after_calls, args=(canary,)).start()
        code, printed = _roll_out(path, servers, capsys)
        assert (code, printed["state"]) == (3, "rolled back")
        assert printed["reason"].startswith(reason)
        assert canary.calls
        load.assert_all_follow({server.url for server in stable})
