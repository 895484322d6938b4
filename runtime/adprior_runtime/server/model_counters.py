"""A model's counters in Triton's statistics: requests, batches, time in each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

STEPS: Final = ("queue", "compute_input", "compute_infer", "compute_output")
"""Triton's steps of a request in a model: wait, copy tensors in, run the model, copy them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounters:
    """Counters of one model, since the server's start or between two readings.

    Attributes:
        requests: Answered requests.
        failures: Requests that were refused, timed out or failed.
        executions: Batches.
        total_s: Seconds from a request's arrival to its answer, summed over requests.
        step_s: Seconds in each of `STEPS`, summed over requests.
    """

    requests: int = 0
    failures: int = 0
    executions: int = 0
    total_s: float = 0.0
    step_s: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    @classmethod
    def of(cls, statistics: Any) -> ModelCounters:
        """Return the counters in Triton's ``ModelStatistics``."""
        inference = statistics.inference_stats
        return cls(
            requests=inference.success.count,
            failures=inference.fail.count,
            executions=statistics.execution_count,
            total_s=inference.success.ns / 1e9,
            step_s={step: getattr(inference, step).ns / 1e9 for step in STEPS},
        )

    def since(self, earlier: ModelCounters) -> ModelCounters:
        """Return the difference."""
        return ModelCounters(
            requests=self.requests - earlier.requests,
            failures=self.failures - earlier.failures,
            executions=self.executions - earlier.executions,
            total_s=self.total_s - earlier.total_s,
            step_s={step: self.step_s[step] - earlier.step_s[step] for step in STEPS},
        )

    def step_ms(self) -> dict[str, float]:
        """Return the mean milliseconds of a request in each step."""
        return {step: 1e3 * self.step_s[step] / max(self.requests, 1) for step in STEPS}
