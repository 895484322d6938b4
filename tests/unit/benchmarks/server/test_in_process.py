from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adprior_bench.server.in_process import InProcess, measure_workers, start_workers
from adprior_bench.server.scenarios import Scenario
from adprior_bench.server.workload import UserRequest
from adprior_runtime.errors import AdpriorError
from adprior_runtime.repository.model_specs import ModelTuning


def test_the_engine_in_process_answers_every_scenario(
    stored: list[UserRequest], tiny_bundle: Path
) -> None:
    engine, request = InProcess(tiny_bundle, threads=1), stored[0]
    (forecast,) = (call() for call in engine.calls(Scenario.RETRIEVAL, [request]))
    assert len(forecast.advertiser_ids) == 20
    for scenario in (Scenario.LIVE_RANKING, Scenario.STORED_RANKING):
        (adjusted,) = (call() for call in engine.calls(scenario, [request]))
        assert adjusted.logits.shape == (50,)
        assert np.any(adjusted.adjustments)


def test_workers_answer_until_one_ends(stored: list[UserRequest], tiny_bundle: Path) -> None:
    engine = ModelTuning(instances=2, threads=1)
    with start_workers(tiny_bundle, stored, engine) as workers:
        rate = measure_workers(workers, Scenario.STORED_RANKING, 0.1)
        assert rate.throughput > 1
        assert rate.cpu_s_per_request > 0
        workers[1].process.kill()
        workers[1].process.wait()
        with pytest.raises(AdpriorError, match="the engine in-process ended with status -9"):
            measure_workers(workers, Scenario.STORED_RANKING, 0.1)
