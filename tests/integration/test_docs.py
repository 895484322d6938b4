"""The examples of two pages, run as they stand, and typed as a strict user has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_client import RetrievalClient
from adprior_runtime.cli import main
from adprior_runtime.server.tritonserver import TritonServer
from support.data_set import user
from support.paths import ROOT
from support.redis_server import needs_redis, running_redis

pytestmark = pytest.mark.triton

DOCS = ROOT / "docs"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
RANKING, RETRIEVAL, BLENDING, STORED = PYTHON.findall((DOCS / "clients.md").read_text())
PARQUET, REDIS = PYTHON.findall((DOCS / "stored_forecasts.md").read_text())


ARRAYS = """
import numpy as np
from numpy.typing import NDArray

from adprior_client import RankingClient, ScoreRequest, User


def rank(client: RankingClient, ids: NDArray[np.int64], z: NDArray[np.float32]) -> list[float]:
    user = User(as_of="2024-05-31")
    many = client.score_many([ScoreRequest(subject=user, candidates=ids, base_logits=z)])
    one: NDArray[np.float64] = client.score(user, ids, z, user_id=7).logits
    return [float(one[0]), float(many[0].logits[0])]
"""


def _run(code: str, directory: Path, **variables: str) -> str:
    path = directory / "example.py"
    path.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        check=False,
        env=os.environ | variables,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_ranking_service(server: TritonServer, tmp_path: Path) -> None:
    output = _run(RANKING, tmp_path, ADPRIOR_CLIENT_URLS=server.grpc_address).splitlines()
    assert re.fullmatch(r"first: 1(00|07|14) source: live reason: None", output[0])
    rows = [json.loads(line) for line in output[1:]]
    assert [row["advertiser_id"] for row in rows] == [100, 107, 114]
    assert all(row["applied"] for row in rows)


def test_the_retrieval_service(server: TritonServer, tmp_path: Path) -> None:
    output = _run(RETRIEVAL, tmp_path, ADPRIOR_CLIENT_URLS=server.grpc_address).splitlines()
    assert len(output) == 8
    assert all(line.startswith("live None ['") for line in output)


def test_blending_with_a_forecast_and_without(server: TritonServer, tmp_path: Path) -> None:
    output = _run(BLENDING, tmp_path, ADPRIOR_CLIENT_URLS=server.grpc_address)
    added = r"live: [1-9] of 50 items come from the forecast,\nHerfindahl 0\.\d+, reason None\n"
    assert re.fullmatch(added, output)
    output = _run(BLENDING, tmp_path, ADPRIOR_CLIENT_URLS="127.0.0.1:1")
    assert output.startswith("none: 0 of 50 items come from the forecast,\nHerfindahl 0.059")


def test_the_stored_forecasts(
    server: TritonServer, retrieval: RetrievalClient, tmp_path: Path
) -> None:
    path = tmp_path / "daily.parquet"
    row = retrieval.forecast(user(3)).to_log(user_id="user-17")
    pq.write_table(pa.Table.from_pylist([row]), path)
    urls = {"ADPRIOR_CLIENT_URLS": server.grpc_address, "FORECASTS": str(path)}
    assert _run(STORED, tmp_path, **urls).startswith("live 0.")
    urls["ADPRIOR_CLIENT_URLS"] = "127.0.0.1:1"
    assert re.match(r"stored \d+\.\d+ unavailable", _run(STORED, tmp_path, **urls))
    del urls["FORECASTS"]
    assert _run(STORED, tmp_path, **urls).startswith("none None unavailable")


@needs_redis
def test_the_forecasts_stored_in_redis(
    server: TritonServer, retrieval: RetrievalClient, tmp_path: Path
) -> None:
    row = retrieval.forecast(user(3)).to_log(user_id="user-17")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "daily.parquet")
    with running_redis(tmp_path) as redis:
        publish = ["publish", "--forecasts", str(tmp_path / "daily.parquet"), "--redis", redis.url]
        assert main(publish) == 0
        up = {"ADPRIOR_CLIENT_URLS": server.grpc_address, "FORECASTS_REDIS": redis.url}
        up["FORECASTS_TIMEOUT_S"] = "10"
        assert re.fullmatch(r"live .*\nstored None\n", _run(REDIS, tmp_path, **up))
        down = up | {"ADPRIOR_CLIENT_URLS": "127.0.0.1:1"}
        stored = r"stored \d+\.\d+ unavailable 2.*found=1, absent=0.*\nnone unavailable\n"
        assert re.fullmatch(stored, _run(REDIS, tmp_path, **down))
    # Redis has stopped: its failure costs no call.
    assert re.fullmatch(r"live .*\n", _run(REDIS, tmp_path, **up))
    nothing = r"none None unavailable None LookupCounts\(.*\n"
    assert re.fullmatch(nothing, _run(REDIS, tmp_path, **down))


def test_the_examples_are_typed_as_strictly_as_can_be(tmp_path: Path) -> None:
    pages = (RANKING, RETRIEVAL, BLENDING, STORED, PARQUET, REDIS, ARRAYS)
    for number, code in enumerate(pages):
        (tmp_path / f"example_{number}.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental", "."],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
