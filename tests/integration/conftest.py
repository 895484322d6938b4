"""One really trained model, really built, on the real tritonserver: made once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_client import ClientConfig, RankingClient, RetrievalClient
from adprior_runtime.cli import main
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer

ADVERTISERS = [
    "Acme", "Acme Pets", "Acme Pets Gold", "Birch & Co", "Cobalt", "Dune Coffee", "Ember", "Fjord",
    "Gable", "Heron", "Isle of Tea", "Juniper", "Kite", "Lumen", "Moss", "Nori", "Opal", "Pine",
    "Quill", "Rook", "Sable", "Tern", "Umber", "Vale", "Willow", "Xylo", "Yarrow", "Zéphyr", "麦穗",
    "365",
]  # fmt: skip
ALIASES = {"Cobalt": "Cobalt Inc|Cobalt Ltd", "Ember": "Ember Candles"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Input files of the commands, invented."""

    directory: Path

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def train_arguments(self, output: Path, *, epochs: int) -> list[str]:
        arguments = ["train", "--output", str(output), "--epochs", str(epochs), "--batch-size", "8"]
        for option in ("events", "profiles"):
            arguments += [f"--{option}", self.path(f"{option}.parquet")]
        arguments += ["--columns", self.path("columns.toml"), "--size", self.path("size.toml")]
        arguments += ["--catalogue", self.path("catalogue.csv")]
        return [
            *arguments,
            "--cut",
            "2024-03-01",
            "--test-share",
            "0.25",
            "--learning-rate",
            "5e-3",
        ]


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    directory = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(7)
    rows = []
    for user in range(60):
        favourites = random.choice(len(ADVERTISERS), size=4, replace=False)
        for _ in range(int(random.integers(3, 25))):
            name = ADVERTISERS[random.choice(favourites)]
            rows.append(
                {
                    "who": f"user-{user}",
                    "day": date(2024, 1, 1) + timedelta(days=int(random.integers(0, 90))),
                    "brand": name if random.random() < 0.9 else None,
                    "kind": f"CATEGORY_{len(name) % 5}",
                }
            )
    pa.parquet.write_table(pa.Table.from_pylist(rows), directory / "events.parquet")
    profiles = [{"who": f"user-{user}", "age": f"{user % 5}0s"} for user in range(60)]
    pa.parquet.write_table(pa.Table.from_pylist(profiles), directory / "profiles.parquet")
    catalogue = {
        "advertiser_id": [100 + row for row in range(len(ADVERTISERS))],
        "name": ADVERTISERS,
        "aliases": [ALIASES.get(name, "") for name in ADVERTISERS],
    }
    pa.csv.write_csv(pa.table(catalogue), directory / "catalogue.csv")
    (directory / "columns.toml").write_text(
        '[events]\nuser = "who"\ntime = "day"\nadvertiser = "brand"\ncategory = "kind"\n'
        '[profiles]\nuser = "who"\n'
    )
    (directory / "size.toml").write_text(
        "hidden_size = 32\nintermediate_size = 64\nlayers = 2\nattention_heads = 4\n"
        "key_value_heads = 2\nvocabulary_size = 320\nmax_prompt_tokens = 96\n"
    )
    return DataSet(directory=directory)


@pytest.fixture(scope="session")
def checkpoint(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    assert main(data_set.train_arguments(output, epochs=30)) == 0
    return output


@pytest.fixture(scope="session")
def bundle(data_set: DataSet, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a fitted head, by way of a simulated ranking log."""
    place = tmp_path_factory.mktemp("built")
    first, second, repository = (str(place / name) for name in ("first", "bundle", "repository"))
    log, head = str(place / "log.parquet"), str(place / "head.onnx")
    build = ["build", "--output", repository, "--forecast-k", "10", "--beam-width", "8"]
    assert main([*build, "--checkpoint", str(checkpoint), "--save-bundle", first]) == 0
    simulate = ["bench", "simulate-log", "--bundle", first, "--candidates", "10", "--output", log]
    simulate += ["--events", data_set.path("events.parquet")]
    simulate += ["--profiles", data_set.path("profiles.parquet")]
    assert main([*simulate, "--columns", data_set.path("columns.toml")]) == 0
    assert main(["fit-head", "--logs", log, "--bundle", first, "--output", head]) == 0
    assert main([*build, "--bundle", first, "--head", head, "--save-bundle", second]) == 0
    return Path(second)


@pytest.fixture(scope="session")
def repository(bundle: Path) -> Path:
    return bundle.with_name("repository")


def start_server(repository: Path, **options: Any) -> TritonServer:
    grpc_port, http_port, metrics_port = free_ports(3)
    return TritonServer.start(
        repository,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        **options,
    )


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    with start_server(repository) as running:
        yield running


@pytest.fixture(scope="session")
def retrieval(server: TritonServer) -> Iterator[RetrievalClient]:
    with RetrievalClient(
        ClientConfig(urls=(server.grpc_address,), deadline_s=30, fail_open=False)
    ) as client:
        yield client


@pytest.fixture(scope="session")
def ranking(server: TritonServer) -> Iterator[RankingClient]:
    with RankingClient(
        ClientConfig(urls=(server.grpc_address,), deadline_s=30, fail_open=False)
    ) as client:
        yield client
