from __future__ import annotations

import json

import pytest

from adprior_runtime.cli import main


def test_each_client_is_compared_with_bare_tritonclient(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "clients", "--candidates", "20", "--calls", "30", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["client"] for row in rows] == [
        "bare tritonclient",
        "RankingClient, arrays",
        "RankingClient, lists",
        "bare tritonclient.grpc.aio",
        "AsyncRankingClient, arrays",
        "AsyncRankingClient, lists",
    ]
    assert [row["overhead_ms"] is None for row in rows] == [True, False, False] * 2
    assert all(row["p50_ms"] > 0 for row in rows)


def test_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "clients", "--candidates", "5", "--calls", "10"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "client", "p50", "ms", "p95", "ms", "p99", "ms",
        "overhead", "ms", "overhead", "ms", "low", "overhead", "ms", "high",
    ]  # fmt: skip
