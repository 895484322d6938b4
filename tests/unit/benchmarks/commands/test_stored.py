from __future__ import annotations

import json
import shutil

import pytest

from adprior_runtime.cli import main
from support.redis_server import needs_redis

FEW = ["bench", "stored", "--users", "300", "--advertisers", "5", "--lookups", "50", "--runs", "2"]


@needs_redis
def test_publishing_and_lookups_are_compared_with_plain_redis(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*FEW, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["users"] == 300
    assert len(report["ratio"]) == 2
    assert 0 < report["redis_bytes_per_user"] < report["plain_set_redis_bytes_per_user"]
    assert [(row["source"], row["threads"]) for row in report["lookups"]] == [
        ("plain GET", 1),
        ("RedisForecasts", 1),
        ("ParquetForecasts", 1),
        ("plain GET", 8),
        ("RedisForecasts", 8),
    ]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in report["lookups"])


@needs_redis
def test_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FEW) == 0
    shown = capsys.readouterr().out
    assert "adprior publish, users/s" in shown
    assert "RedisForecasts" in shown


def test_a_missing_server_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(FEW) == 2
    assert "no redis-server on PATH: apt-get install" in capsys.readouterr().err
