"""A stand-in for ``triton_python_backend_utils``, with the parts that the models use.

The real module can be imported only inside a tritonserver.
"""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

_MODULE = "triton_python_backend_utils"
_MODELS = "adprior_runtime.triton"
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Tensor:
    name: str
    values: npt.NDArray[Any]

    def as_numpy(self) -> npt.NDArray[Any]:
        return self.values


class TritonError(Exception):
    """A message and a numeric code."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, CANCELLED = range(6)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class InferenceResponse:
    output_tensors: Sequence[Tensor] = ()
    error: TritonError | None = None

    def values(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors without their batch dimension."""
        assert self.error is None, str(self.error)
        return {tensor.name: tensor.values[0] for tensor in self.output_tensors}


@dataclass(frozen=True)
class ResponseSender:
    sent: queue.Queue[InferenceResponse]

    def send(self, response: InferenceResponse, flags: int) -> None:
        assert flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self.sent.put(response)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One user's tensors, without their batch dimension."""

    tensors: Mapping[str, npt.NDArray[Any]]
    outputs: Sequence[str]
    is_cancelled: Callable[[], bool] = field(default=lambda: False)
    timeout_us: int = 0
    _sent: queue.Queue[InferenceResponse] = field(default_factory=queue.Queue)

    def timeout(self) -> int:
        return self.timeout_us

    def get_response_sender(self) -> ResponseSender:
        return ResponseSender(self._sent)

    def sent(self) -> InferenceResponse:
        """Return the response that is sent, once `execute` has returned None."""
        return self._sent.get(timeout=60)

    def requested_output_names(self) -> Sequence[str]:
        return self.outputs


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    values = request.tensors.get(name)
    return None if values is None else Tensor(name, values[np.newaxis])


class MetricFamily:
    """Metrics; ``shown`` has the values of all families, as at ``/metrics``."""

    COUNTER, GAUGE, HISTOGRAM = range(3)
    shown: ClassVar[dict[str, dict[Labels, float]]] = {}
    refused: ClassVar[set[str]] = set()
    """Names of metrics that the server refuses."""

    def __init__(self, *, name: str, description: str, kind: int) -> None:
        if name in self.refused:
            raise RuntimeError(name)
        assert description
        self.kind = kind
        self._series = self.shown.setdefault(name, {})

    def Metric(  # noqa: N802  Triton's name
        self, *, labels: Mapping[str, str], buckets: list[float] | None = None
    ) -> Metric:
        assert (buckets is None) == (self.kind != self.HISTOGRAM)
        assert buckets == sorted(buckets or []) or buckets is None
        key = frozenset(labels.items())
        self._series[key] = 0.0
        return Metric(self.kind, self._series, key)


@dataclass(frozen=True)
class Metric:
    kind: int
    series: dict[Labels, float]
    key: Labels

    def increment(self, value: float) -> None:
        assert self.kind == MetricFamily.COUNTER
        assert value >= 0
        self.series[self.key] += value

    def set(self, value: float) -> None:
        assert self.kind == MetricFamily.GAUGE
        self.series[self.key] = value

    def observe(self, value: float) -> None:
        """Count the values, as a histogram's ``_count`` does."""
        assert self.kind == MetricFamily.HISTOGRAM
        assert value == value  # noqa: PLR0124  no NaN
        self.series[self.key] += 1


@pytest.fixture(scope="module")
def _backend() -> Iterator[None]:
    fake = ModuleType(_MODULE)
    for item in (Tensor, TritonError, InferenceResponse, MetricFamily, get_input_tensor_by_name):
        setattr(fake, item.__name__, item)
    fake.TRITONSERVER_RESPONSE_COMPLETE_FINAL = (  # type: ignore[attr-defined]
        TRITONSERVER_RESPONSE_COMPLETE_FINAL
    )
    MetricFamily.shown.clear()
    MetricFamily.refused.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, _MODULE, fake)
        yield
    for name in [name for name in sys.modules if name.startswith(f"{_MODELS}.")]:
        del sys.modules[name]


def shown_metrics(model: Any, name: str) -> dict[str, float]:
    """Return the server's values of a model's metric, by the value of its own label."""
    model.metrics.flush()
    own = {("model", model.name), ("model_instance", f"{model.name}_0_0")}
    shown = sys.modules[_MODULE].MetricFamily.shown.get(name, {})
    return {
        "".join(value for _, value in key - own): number
        for key, number in shown.items()
        if own <= key
    }


def load_model(
    kind: Any, place: Path, bundle: Path, config: Mapping[str, Any] | None = None
) -> Any:
    """Load a model as Triton does, from a version directory with a bundle."""
    version = place / kind.name / "1"
    version.mkdir(parents=True)
    (version / "bundle").symlink_to(bundle)
    model = kind()
    model.initialize(
        {
            "model_repository": str(version.parent),
            "model_version": "1",
            "model_instance_name": f"{model.name}_0_0",
            "model_config": json.dumps(config or {}),
        }
    )
    # On a busy machine a process may stand still; the tests must not end for that.
    model._heartbeat.stop()
    model._heartbeat.is_given_up = lambda _began: False
    return model
