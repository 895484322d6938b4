from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from adprior_explore.step_times import Reading, StepTimes, read_times
from adprior_runtime import contract
from adprior_runtime.server.model_counters import ModelCounters

MODELS = (*contract.MODEL_NAMES[:3], contract.ADVERTISER_RETRIEVAL)
SECONDS = {"queue": 0.001, "compute_input": 0.002, "compute_infer": 0.5, "compute_output": 0.003}


def _after(**changed: Any) -> dict[str, ModelCounters]:
    one = ModelCounters(requests=1, total_s=0.6, step_s=SECONDS)
    return dict.fromkeys(MODELS, one) | changed


BEFORE = dict.fromkeys(MODELS, ModelCounters())


def test_one_requests_times() -> None:
    found = StepTimes.between(BEFORE, _after())
    assert found is not None
    assert found.total_ms == pytest.approx(600)
    assert [step["step"] for step in found.steps] == [
        contract.TOKENIZER,
        contract.LLM_ENGINE,
        contract.ADVERTISER_DECODER,
    ]
    assert found.steps[1]["ms"] == pytest.approx(505)
    assert found.steps[1]["queue_ms"] == pytest.approx(1)


@pytest.mark.parametrize("model", MODELS)
def test_another_request_makes_them_unknown(model: str) -> None:
    two = ModelCounters(requests=2, total_s=1.2, step_s=SECONDS)
    assert StepTimes.between(BEFORE, _after(**{model: two})) is None


def test_the_times_of_two_retrievals_are_sums() -> None:
    doubled = {step: 2 * value for step, value in SECONDS.items()}
    two = dict.fromkeys(MODELS, ModelCounters(requests=2, total_s=1.2, step_s=doubled))
    found = StepTimes.between(BEFORE, two, retrievals=2)
    assert found is not None
    assert found.total_ms == pytest.approx(1200)
    assert found.steps[1]["ms"] == pytest.approx(1010)
    assert found.steps[1]["queue_ms"] == pytest.approx(2)


def test_a_request_that_is_not_counted_yet_makes_them_unknown() -> None:
    assert StepTimes.between(BEFORE, BEFORE) is None


def test_a_server_without_these_models_has_no_times() -> None:
    assert StepTimes.between({}, {}) is None


def _read_from(readings: Iterable[Reading]) -> StepTimes | None:
    remaining = iter(readings)

    async def read() -> Reading:
        return next(remaining)

    return asyncio.run(read_times(BEFORE, read))


def test_a_request_that_triton_counts_late_is_waited_for() -> None:
    decoded_late = _after(**{contract.ADVERTISER_DECODER: ModelCounters()})
    assert _read_from([BEFORE, decoded_late, _after()]) == StepTimes.between(BEFORE, _after())
    assert _read_from([BEFORE] * 4) is None


def test_another_request_is_not_waited_for() -> None:
    two = ModelCounters(requests=2, total_s=1.2, step_s=SECONDS)
    assert _read_from([_after(**{contract.TOKENIZER: two})]) is None
