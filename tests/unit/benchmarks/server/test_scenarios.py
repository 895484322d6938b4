from __future__ import annotations

import json
from pathlib import Path

import pytest

from adprior_bench.server.scenarios import Scenario, write_input_data
from adprior_bench.server.workload import UserRequest
from adprior_runtime import contract
from adprior_runtime.repository import model_specs

MODELS = {
    Scenario.RETRIEVAL: contract.ADVERTISER_RETRIEVAL,
    Scenario.LIVE_RANKING: contract.ADVERTISER_RANKING,
    Scenario.STORED_RANKING: contract.PRIOR_HEAD,
}


@pytest.mark.parametrize("scenario", [*Scenario])
def test_perf_analyzer_sends_the_models_inputs(
    scenario: Scenario, stored: list[UserRequest], tmp_path: Path
) -> None:
    write_input_data(tmp_path / "in.json", scenario, stored)
    steps = json.loads((tmp_path / "in.json").read_text())["data"]
    assert len(steps) == len(stored)
    inputs = model_specs.model(MODELS[scenario], contract.Target.CPU).inputs
    required = {tensor.name for tensor in inputs if not tensor.optional}
    for step in steps:
        assert required <= step.keys() <= {tensor.name for tensor in inputs}
        assert all(item["shape"] == [len(item["content"])] for item in step.values())
