"""One trained model, built and served on a real tritonserver, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adprior_client import RankingClient, RetrievalClient
from adprior_runtime.cli import main
from adprior_runtime.server.tritonserver import TritonServer
from support.data_set import DataSet
from support.servers import Served, serve, start_server


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return DataSet.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def checkpoint(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    assert main(data_set.train_arguments(output, epochs=30)) == 0
    return output


@pytest.fixture(scope="session")
def bundle(data_set: DataSet, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a head that was fitted on a simulated ranking log."""
    place = tmp_path_factory.mktemp("built")
    first, second, repository = (str(place / name) for name in ("first", "bundle", "repository"))
    log, head = str(place / "log.parquet"), str(place / "head.onnx")
    build = ["build", "--output", repository, "--forecast-k", "10", "--beam-width", "8"]
    assert main([*build, "--checkpoint", str(checkpoint), "--save-bundle", first]) == 0
    simulate = ["bench", "simulate-log", "--bundle", first, "--candidates", "10", "--output", log]
    assert main([*simulate, *data_set.log_options()]) == 0
    assert main(["fit-head", "--logs", log, "--bundle", first, "--output", head]) == 0
    assert main([*build, "--bundle", first, "--head", head, "--save-bundle", second]) == 0
    return Path(second)


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
