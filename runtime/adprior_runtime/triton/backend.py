"""What the four Python models share; the only importer of `triton_python_backend_utils`.

A request is answered by itself: what one gets wrong never touches another of its batch.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb

from adprior_runtime.bundle import MODEL_FILES, Bundle
from adprior_runtime.contract import Target, model
from adprior_runtime.errors import AdpriorError, InvalidRequestError

__all__ = ["Answer", "MetricCounter", "RequestModel", "Tensors"]

Tensors = Mapping[str, npt.NDArray[Any]]
Answer = Mapping[str, npt.ArrayLike]
_DTYPES = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}
# Names, not values: Triton fills its module in after it has imported the models.
_CODES = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "FAILED_PRECONDITION": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
}
_log = logging.getLogger("adprior")


def _is_over(request: Any, began: float) -> Callable[[], bool]:
    """Return a function that tells whether nobody waits for a request any more.

    Triton tells a step of an ensemble of a cancellation only when it ends. So clients send their
    deadline along, as the request's timeout, which the steps of an ensemble are given too.
    """
    timeout_us = request.timeout()
    deadline = began + timeout_us / 1e6 if timeout_us else float("inf")
    return lambda: request.is_cancelled() or time.monotonic() > deadline


class MetricCounter:
    """Counts of a model at the server's ``/metrics``, from 0 on: one for each value of a label."""

    def __init__(
        self, name: str, told: str, label: str = "", values: Iterable[str] = ("",)
    ) -> None:
        """Register the counter; ``told`` is its line of help. Without a label there is one."""
        self._family = pb.MetricFamily(name=name, description=told, kind=pb.MetricFamily.COUNTER)
        self._metrics = {
            value: self._family.Metric(labels={label: value} if label else {}) for value in values
        }

    def add(self, count: int, value: str = "") -> None:
        """Count ``count`` more; none costs nothing."""
        if count:
            self._metrics[value].increment(count)


class RequestModel(ABC):
    """A Triton Python model that answers one user's request at a time.

    A subclass names its model of the contract and says what to load and how to answer; tensors come
    and go without the batch dimension.
    """

    name: str

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by Triton: check the artefacts' hashes and load them."""
        directory = Path(args["model_repository"]) / args["model_version"] / "bundle"
        self._spec = model(self.name, Target.CPU)
        self.load(Bundle.open(directory, MODEL_FILES[self.name]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Called by Triton with a dynamic batch."""
        began = time.monotonic()
        return [self._respond(request, began) for request in requests]

    @abstractmethod
    def load(self, bundle: Bundle) -> None:
        """Load what the model needs."""

    @abstractmethod
    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:
        """Answer one user's request; inputs the request left out are absent."""

    def _respond(self, request: Any, began: float) -> Any:
        try:
            outputs = self.answer(self._inputs(request), _is_over(request, began))
            return self._response(outputs, set(request.requested_output_names()))
        except AdpriorError as error:
            code = getattr(pb.TritonError, _CODES.get(error.grpc_code, "INTERNAL"))
            return pb.InferenceResponse(error=pb.TritonError(str(error), code))
        except Exception as error:  # noqa: BLE001  a bug in one answer must not fail its batch
            # Only the kind and place: the message of a foreign error may quote the user's data.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = (
                f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
            )
            _log.error("%s: %s at %s", self.name, type(error).__name__, where)
            message = f"{self.name}: internal error ({type(error).__name__} at {where})"
            return pb.InferenceResponse(error=pb.TritonError(message, pb.TritonError.INTERNAL))

    def _response(self, outputs: Answer, wanted: set[str]) -> Any:
        return pb.InferenceResponse(
            [
                pb.Tensor(spec.name, np.asarray(outputs[spec.name], _DTYPES[spec.dtype])[None])
                for spec in self._spec.outputs
                if spec.name in outputs and spec.name in wanted
            ]
        )

    def _inputs(self, request: Any) -> Tensors:
        inputs = {}
        for spec in self._spec.inputs:
            tensor = pb.get_input_tensor_by_name(request, spec.name)
            if tensor is None:
                if not spec.optional:
                    # Triton only counts them: an optional one may stand in its place.
                    raise InvalidRequestError(f"{spec.name}: missing")
                continue
            array = tensor.as_numpy()
            if array.shape[0] != 1:
                raise InvalidRequestError(
                    f"{spec.name}: {array.shape[0]} users in one request, expected 1; "
                    "the server does the batching"
                )
            inputs[spec.name] = array[0]
        return inputs
