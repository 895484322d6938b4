"""The torch engine on a real tritonserver, beside ONNX Runtime: same model, same head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adprior_client import RankingClient, RetrievalClient
from adprior_runtime.cli import main
from support.data_set import IDS, user
from support.servers import Served, serve, start_server

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def torch_served(
    bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The trained checkpoint on torch, with the head that was fitted on ONNX Runtime."""
    repository = tmp_path_factory.mktemp("torch") / "repository"
    build = ["build", "--engine", "torch", "--forecast-k", "10", "--beam-width", "8"]
    source = ["--checkpoint", str(checkpoint), "--head", str(bundle / "head.onnx")]
    assert main([*build, *source, "--output", str(repository)]) == 0
    with serve(start_server(repository)) as running:
        yield running


@pytest.mark.parametrize("events", [0, 5, 30])
def test_forecasts_and_rankings_equal_those_of_onnx_runtime(
    torch_served: Served, retrieval: RetrievalClient, ranking: RankingClient, events: int
) -> None:
    expected = retrieval.forecast(user(events))
    found = torch_served.retrieval.forecast(user(events))
    assert found.exact
    assert [a.advertiser_id for a in found.advertisers] == [
        a.advertiser_id for a in expected.advertisers
    ]
    mine, theirs = ([a.log_prob for a in f.advertisers] for f in (found, expected))
    np.testing.assert_allclose(mine, theirs, atol=1e-3)
    logits = np.linspace(-3, 1, len(IDS)).tolist()
    mine, theirs = (
        client.score(user(events), [*IDS.values()], logits).logits.tolist()
        for client in (torch_served.ranking, ranking)
    )
    np.testing.assert_allclose(mine, theirs, atol=1e-3)
