"""The time of one request by step, as the difference of two readings of Triton's statistics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from adprior_runtime.contract import (
    ADVERTISER_DECODER,
    ADVERTISER_RETRIEVAL,
    LLM_ENGINE,
    TOKENIZER,
)
from adprior_runtime.server.model_counters import ModelCounters

Reading = Mapping[str, ModelCounters]
_STEPS: Final = (TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER)
_MODELS: Final = (*_STEPS, ADVERTISER_RETRIEVAL)
_READINGS: Final = 4
"""Triton may count a request shortly after its answer, so the statistics are read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Milliseconds of one retrieval, or the sums of several.

    Attributes:
        steps: For each model: ``step``, ``ms`` in the model, ``queue_ms`` before it.
        total_ms: The whole request, from its arrival at Triton to the answer.
    """

    steps: list[dict[str, Any]]
    total_ms: float

    @classmethod
    def between(cls, before: Reading, after: Reading, retrievals: int = 1) -> StepTimes | None:
        """Return the times of the only retrievals between two readings.

        None if a model answered another request too, or if statistics are missing.
        """
        try:
            found = {name: after[name].since(before[name]) for name in _MODELS}
        except KeyError:
            return None
        if any(counters.requests != retrievals for counters in found.values()):
            return None
        steps = []
        for name in _STEPS:
            times = {part: 1e3 * value for part, value in found[name].step_s.items()}
            queue_ms = times.pop("queue")
            steps.append({"step": name, "ms": sum(times.values()), "queue_ms": queue_ms})
        return cls(steps=steps, total_ms=1e3 * found[ADVERTISER_RETRIEVAL].total_s)


async def read_times(
    before: Reading, read: Callable[[], Awaitable[Reading]], retrievals: int = 1
) -> StepTimes | None:
    """Return the times of the retrievals that were just answered; see `StepTimes.between`.

    Args:
        before: The statistics before them.
        read: Reads the statistics.
        retrievals: How many they were.
    """
    after = await read()
    for _ in range(_READINGS - 1):
        if all(
            after[name].requests >= before[name].requests + retrievals
            for name in before.keys() & after.keys() & set(_MODELS)
        ):
            break
        after = await read()
    return StepTimes.between(before, after, retrievals)
