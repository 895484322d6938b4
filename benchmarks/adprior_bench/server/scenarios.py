"""The three things that an ads stack asks, as tensors for a server and as calls in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from adprior_bench.server.workload import StoredForecast, UserRequest
from adprior_runtime import contract
from adprior_runtime.bundle import HEAD_FILE, MODEL_FILES
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.head.features import candidate_priors, validate_head_request
from adprior_runtime.head.head import PriorHead
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.repository import model_specs
from adprior_runtime.text.json_text import to_json


class Scenario(StrEnum):
    """What is asked."""

    RETRIEVAL = "retrieval"
    LIVE_RANKING = "live_ranking"
    STORED_RANKING = "stored_ranking"


MODELS: Final = {
    Scenario.RETRIEVAL: contract.ADVERTISER_RETRIEVAL,
    Scenario.LIVE_RANKING: contract.ADVERTISER_RANKING,
    Scenario.STORED_RANKING: contract.PRIOR_HEAD,
}
"""The model that each is asked of."""


def write_input_data(path: Path, scenario: Scenario, requests: Iterable[UserRequest]) -> None:
    """Write what perf_analyzer sends, one request after the other (its ``--input-data``)."""
    model = model_specs.model(MODELS[scenario], contract.Target.CPU)
    known = {tensor.name for tensor in model.inputs}
    steps = []
    for request in requests:
        tensors = _ranking_tensors(request)
        if scenario is not Scenario.STORED_RANKING:
            tensors[contract.USER_CONTEXT] = [request.context]
        elif request.forecast is not None:
            tensors |= _forecast_tensors(request.forecast)
        steps.append(
            {
                name: {"content": values, "shape": [len(values)]}
                for name, values in tensors.items()
                if name in known
            }
        )
    path.write_text(to_json({"data": steps}), encoding="utf-8")


def _ranking_tensors(request: UserRequest) -> dict[str, list[Any]]:
    return {
        contract.CANDIDATE_ADVERTISER_IDS: request.candidate_ids,
        contract.BASE_LOGITS: request.base_logits,
    }


def _forecast_tensors(forecast: StoredForecast) -> dict[str, list[Any]]:
    return {
        contract.ADVERTISER_IDS: forecast.advertiser_ids,
        contract.LOG_PROBS: forecast.log_probs,
        contract.MISSING_MASS: [forecast.missing_mass],
        contract.EXACT: [forecast.exact],
    }


class InProcess:
    """Answers the scenarios with the runtime's own modules, without a server.

    Args:
        bundle: A directory with the files of `MODEL_FILES` and their manifest.
        threads: Of one forward pass, as the server's engine has them.
    """

    def __init__(self, bundle: Path, threads: int) -> None:
        files = {name for names in MODEL_FILES.values() for name in names}
        self._forecaster = Forecaster(bundle, threads=threads, files=files)
        self._head = PriorHead(self._forecaster.bundle.path(HEAD_FILE))

    def calls(self, scenario: Scenario, requests: Sequence[UserRequest]) -> list[Callable[[], Any]]:
        """Return, for each request, what answers it from what a caller would send."""
        make = {
            Scenario.RETRIEVAL: self._retrieval,
            Scenario.LIVE_RANKING: self._live_ranking,
            Scenario.STORED_RANKING: self._stored_ranking,
        }[scenario]
        return [make(request) for request in requests]

    def _retrieval(self, request: UserRequest) -> Callable[[], Any]:
        raw = request.context.encode()
        return lambda: self._forecaster.forecast(parse_context(raw))

    def _live_ranking(self, request: UserRequest) -> Callable[[], Any]:
        raw = request.context.encode()
        ids = np.array(request.candidate_ids, dtype=np.int64)
        logits = np.array(request.base_logits, dtype=np.float32)

        def rank() -> Any:
            _, priors = self._forecaster.rank(parse_context(raw), ids)
            return self._head.adjust(logits, priors)

        return rank

    def _stored_ranking(self, request: UserRequest) -> Callable[[], Any]:
        forecast = request.forecast
        if forecast is None:
            raise ValueError("a stored ranking needs a forecast")
        known: dict[str, Any] = {
            "forecast_ids": np.array(forecast.advertiser_ids, dtype=np.int64),
            "forecast_log_probs": np.array(forecast.log_probs, dtype=np.float32),
            "missing_mass": forecast.missing_mass,
            "candidate_ids": np.array(request.candidate_ids, dtype=np.int64),
        }
        logits = np.array(request.base_logits, dtype=np.float32)

        def rank() -> Any:
            validate_head_request(**known, base_logits=logits)
            priors = candidate_priors(
                **known,
                forecast_exact=forecast.exact,
                forecast_k=self._forecaster.bundle.forecast_k,
                advertisers=self._forecaster.advertisers,
            )
            return self._head.adjust(logits, priors)

        return rank
