"""Rollouts on real servers below clients under load: a canary that is killed, then a good one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adprior_client.commands import rollout
from adprior_runtime.server.tritonserver import TritonServer
from support.client_calls import run_command
from support.following_load import Load
from support.processes import await_true
from support.server_names import write_servers
from support.servers import build_repository, start_server

pytestmark = pytest.mark.triton


@pytest.fixture
def servers(
    tiny_bundle: Path, tiny_repository: Path, tmp_path: Path
) -> Iterator[list[TritonServer]]:
    """Return a stable server and two canaries with another bundle."""
    green = build_repository(tiny_bundle, tmp_path / "green", "--beam-width", "24")
    with ExitStack() as stack:
        yield [
            stack.enter_context(start_server(repository))
            for repository in (tiny_repository, green, green)
        ]


def test_a_killed_canary_costs_no_forecast_and_a_good_one_is_promoted(
    tmp_path: Path, servers: list[TritonServer], capsys: pytest.CaptureFixture[str]
) -> None:
    path, (stable, first, second) = tmp_path / "servers", servers

    def roll_out(canary: TritonServer) -> tuple[int, Any]:
        capsys.readouterr()
        code = run_command(
            rollout,
            *("--servers", str(path), "--canary", canary.grpc_address, "--json", "--metrics"),
            *(f"{each.grpc_address}={each.metrics_address}" for each in (stable, canary)),
            *("--steps", "0.2", "0.5", "--hold", "6s", "--longest", "200s", "--look", "0.5s"),
            *("--min-requests", "30", "--max-latency-ratio", "4", "--max-p95-ratio", "8"),
            *("--max-error-increase", "0.2", "--max-exact-drop", "0.3", "--max-psi", "0.5"),
        )
        return code, json.loads(capsys.readouterr().out)

    def kill_under_load(canary: TritonServer) -> None:
        await_true(lambda: f"{canary.grpc_address} canary=0.2" in path.read_text())
        time.sleep(2)  # clients have followed, and some looks are over
        canary.kill()

    with Load(write_servers(path, [stable.grpc_address])) as load:
        await_true(lambda: load.reasons.total() > 50)
        threading.Thread(target=kill_under_load, args=(first,)).start()
        code, printed = roll_out(first)
        assert (code, printed["state"]) == (3, "rolled back")
        assert printed["reason"].startswith(f"lost: http://{first.metrics_address}/metrics: ")
        load.assert_all_follow({stable.grpc_address})
        code, printed = roll_out(second)
        assert (code, printed["state"]) == (0, "promoted"), printed
        load.assert_all_follow({second.grpc_address})
        assert run_command(rollout, "--servers", str(path), "--rollback") == 0
        load.assert_all_follow({stable.grpc_address})
    for step in printed["steps"]:
        # Answers and forecasts are counted by different processes, up to a second apart.
        assert step["requests"]["canary"] >= 30
        assert {rule["verdict"] for rule in step["rules"]} == {"kept"}
