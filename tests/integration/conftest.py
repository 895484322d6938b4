"""One model, trained and built once for all workers; each serves it on a real tritonserver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adprior_client import RankingClient, RetrievalClient
from adprior_runtime.cli import main
from adprior_runtime.server.tritonserver import TritonServer
from support.data_set import DataSet
from support.servers import Served, serve, start_server
from support.shared_files import MakeOnce


@pytest.fixture(scope="session")
def data_set(make_once: MakeOnce) -> DataSet:
    return DataSet(directory=make_once("data", DataSet.write))


@pytest.fixture(scope="session")
def checkpoint(data_set: DataSet, make_once: MakeOnce) -> Path:
    def train(place: Path) -> None:
        assert main(data_set.train_arguments(place / "checkpoint", epochs=30)) == 0

    return make_once("trained", train) / "checkpoint"


@pytest.fixture(scope="session")
def bundle(data_set: DataSet, checkpoint: Path, make_once: MakeOnce) -> Path:
    """A bundle with a head that was fitted on a simulated ranking log."""
    return make_once("built", lambda place: _build(place, data_set, checkpoint)) / "bundle"


def _build(place: Path, data_set: DataSet, checkpoint: Path) -> None:
    first, second, repository = (str(place / name) for name in ("first", "bundle", "repository"))
    log, head = str(place / "log.parquet"), str(place / "head.onnx")
    build = ["build", "--output", repository, "--forecast-k", "10", "--beam-width", "8"]
    assert main([*build, "--checkpoint", str(checkpoint), "--save-bundle", first]) == 0
    simulate = ["bench", "simulate-log", "--bundle", first, "--candidates", "10", "--output", log]
    assert main([*simulate, *data_set.log_options()]) == 0
    assert main(["fit-head", "--logs", log, "--bundle", first, "--output", head]) == 0
    assert main([*build, "--bundle", first, "--head", head, "--save-bundle", second]) == 0


@pytest.fixture(scope="session")
def repository(bundle: Path) -> Path:
    return bundle.with_name("repository")


@pytest.fixture(scope="session")
def served(repository: Path) -> Iterator[Served]:
    with serve(start_server(repository)) as running:
        yield running


@pytest.fixture(scope="session")
def server(served: Served) -> TritonServer:
    return served.server


@pytest.fixture(scope="session")
def retrieval(served: Served) -> RetrievalClient:
    return served.retrieval


@pytest.fixture(scope="session")
def ranking(served: Served) -> RankingClient:
    return served.ranking
