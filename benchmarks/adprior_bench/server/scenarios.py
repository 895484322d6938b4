"""The three requests of an ads stack, and the tensors that perf_analyzer sends for them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from adprior_bench.server.workload import UserRequest
from adprior_client import Forecast
from adprior_runtime import contract
from adprior_runtime.repository import model_specs
from adprior_runtime.text.json_text import to_json


class Scenario(StrEnum):
    """A kind of request."""

    RETRIEVAL = "retrieval"
    LIVE_RANKING = "live_ranking"
    STORED_RANKING = "stored_ranking"


MODELS: Final = {
    Scenario.RETRIEVAL: contract.ADVERTISER_RETRIEVAL,
    Scenario.LIVE_RANKING: contract.ADVERTISER_RANKING,
    Scenario.STORED_RANKING: contract.PRIOR_HEAD,
}
"""The model that answers each scenario."""

TITLES: Final = {
    Scenario.RETRIEVAL: "retrieval",
    Scenario.LIVE_RANKING: "live ranking",
    Scenario.STORED_RANKING: "ranking, stored forecast",
}


def write_input_data(path: Path, scenario: Scenario, requests: Iterable[UserRequest]) -> None:
    """Write the requests as perf_analyzer's ``--input-data``."""
    model = model_specs.model(MODELS[scenario], contract.Target.CPU)
    inputs = {tensor.name for tensor in model.inputs}
    steps = [
        {
            name: {"content": values, "shape": [len(values)]}
            for name, values in _tensors(scenario, request).items()
            if name in inputs
        }
        for request in requests
    ]
    path.write_text(to_json({"data": steps}), encoding="utf-8")


def _tensors(scenario: Scenario, request: UserRequest) -> dict[str, list[Any]]:
    tensors: dict[str, list[Any]] = {
        contract.CANDIDATE_ADVERTISER_IDS: request.candidate_ids,
        contract.BASE_LOGITS: request.base_logits,
    }
    if scenario is not Scenario.STORED_RANKING:
        tensors[contract.USER_CONTEXT] = [request.context]
    elif request.forecast is not None:
        tensors |= _forecast_tensors(request.forecast)
    return tensors


def _forecast_tensors(forecast: Forecast) -> dict[str, list[Any]]:
    return {
        contract.ADVERTISER_IDS: [each.advertiser_id for each in forecast.advertisers],
        contract.LOG_PROBS: [each.log_prob for each in forecast.advertisers],
        contract.MISSING_MASS: [forecast.missing_mass],
        contract.EXACT: [forecast.exact],
    }
