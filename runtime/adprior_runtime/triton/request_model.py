"""The base class of the four Python models. Only this module imports `triton_python_backend_utils`.

Each request is answered alone: an error in one does not affect the others in its batch. A model
answers the requests of a batch one after another, or, with a
`adprior_runtime.triton.search_thread.SearchThread`, together with those of other batches.
"""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb

from adprior_runtime.bundle import DISPENSABLE_FILES, MODEL_FILES, Bundle
from adprior_runtime.contract import MAX_VALUES, Target
from adprior_runtime.errors import AdpriorError, DeviceLostError, InvalidRequestError
from adprior_runtime.repository.model_specs import model
from adprior_runtime.triton.heartbeat import Heartbeat
from adprior_runtime.triton.metric_series import register_metrics
from adprior_runtime.triton.metrics import (
    BUNDLE_INFO,
    FAILED_REQUESTS,
    INVALID_REQUESTS,
    FailureReason,
    Metric,
)
from adprior_runtime.triton.process_end import end_process
from adprior_runtime.triton.recorder import Recorder

if TYPE_CHECKING:
    from adprior_runtime.triton.search_thread import SearchThread

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
# Names, not values: Triton completes its module after it has imported the models.
_CODES = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "FAILED_PRECONDITION": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
    "UNAVAILABLE": "UNAVAILABLE",
}
_log = logging.getLogger("adprior")


def _is_over(request: Any, began: float) -> Callable[[], bool]:
    """Return a function that returns whether a request is cancelled or past its deadline.

    A step of an ensemble learns of a cancellation only when it has ended. So clients also send
    their deadline as the request's timeout, which Triton passes to the steps.
    """
    timeout_us = request.timeout()
    deadline = began + timeout_us / 1e6 if timeout_us else float("inf")
    return lambda: request.is_cancelled() or time.monotonic() > deadline


def _read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``parameters`` of a model's configuration."""
    return {name: item["string_value"] for name, item in config.get("parameters", {}).items()}


def _count_instances(config: Mapping[str, Any]) -> int:
    """Return the number of the model's processes."""
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1


def read_scalar(inputs: Tensors, name: str) -> int | None:
    """Return a whole number of a request; None if the request left it out."""
    return int(inputs[name][0]) if name in inputs else None


class RequestModel(ABC):
    """A Triton Python model that answers requests of one user each.

    A subclass implements `load` and `answer`. Tensors come and go without the batch dimension.

    Attributes:
        name: The model's name.
        metrics: Counts what the model does.
        parameters: The configuration's parameters.
        instances: Number of the model's processes.
        searches: The thread that answers requests together; `load` may set it.
        times: The histogram of the times of answered requests; None for none.
    """

    name: str
    metrics: Recorder
    parameters: Mapping[str, str]
    instances: int
    searches: SearchThread | None = None
    times: Metric | None = None
    _executing: float | None = None

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by Triton: check the artefacts' hashes and load them."""
        directory = Path(args["model_repository"]) / args["model_version"] / "bundle"
        self._spec = model(self.name, Target.CPU)
        lacking = [
            name for name in DISPENSABLE_FILES.get(self.name, ()) if not (directory / name).exists()
        ]
        wanted = [name for name in MODEL_FILES[self.name] if name not in lacking]
        bundle = Bundle.open(directory, wanted)
        config = json.loads(args.get("model_config", "{}"))
        self.parameters, self.instances = _read_parameters(config), _count_instances(config)
        self.metrics = Recorder()
        self.load(bundle)
        # Done last: Triton does not finalize a model that fails in `initialize`.
        instance, bundle_id = args["model_instance_name"], bundle.manifest.bundle_id
        self._families, sinks = register_metrics(pb.MetricFamily, self.name, instance, bundle_id)
        self.metrics.connect(sinks)
        self.metrics.follow(BUNDLE_INFO, lambda: 1.0, bundle_id)
        self.metrics.start()
        self._heartbeat = Heartbeat(work_clock=self.searches.clock if self.searches else None)
        self._heartbeat.start()

    def finalize(self) -> None:
        """Called by Triton before the process ends."""
        if self.searches is not None:
            self.searches.stop()
        self._heartbeat.stop()
        self.metrics.stop()
        # A family deregisters itself at the server, which still listens now.
        self._families.clear()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Called by Triton with a dynamic batch; None if the answers are sent later."""
        began = self._executing = time.monotonic()
        self._end_if_given_up(None)
        responses = None
        if self.searches is None:
            responses = [self._respond(request, began) for request in requests]
        else:
            self.searches.begin([partial(self._send, request, began) for request in requests])
        self._end_if_given_up(began)
        self._executing = None
        return responses

    @abstractmethod
    def load(self, bundle: Bundle) -> None:
        """Load what the model needs."""

    @abstractmethod
    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:
        """Answer one user's request; ``inputs`` lacks what the request left out."""

    def _end_if_given_up(self, began: float | None) -> None:
        """End the process if Triton may have given it up; `heartbeat` explains why."""
        if self._heartbeat.is_given_up(began):
            end_process(f"{self.name}: stood still during a request")

    def _send(self, request: Any, began: float) -> None:
        """Answer a request from the thread of the searches."""
        try:
            sender = request.get_response_sender()
            response = self._respond(request, began)
            for since in {None, self._executing}:  # the server may also have given up `execute`
                self._end_if_given_up(since)
            sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # noqa: BLE001  the other users' searches go on
            self.metrics.count(FAILED_REQUESTS, value=FailureReason.INTERNAL)
            _log.error("%s: an answer is not sent: %s", self.name, type(error).__name__)

    def _respond(self, request: Any, began: float) -> Any:
        try:
            # The request's own memory is Triton's again when `execute` returns.
            wanted = set(request.requested_output_names())
            outputs = self.answer(self._inputs(request), _is_over(request, began))
            response = self._response(outputs, wanted)
            if self.times is not None:
                self.metrics.observe(self.times, time.monotonic() - began)
            return response
        except DeviceLostError as error:
            end_process(f"{self.name}: {error}")
        except AdpriorError as error:
            self._count_refusal(error)
            code = getattr(pb.TritonError, _CODES.get(error.grpc_code, "INTERNAL"))
            return pb.InferenceResponse(error=pb.TritonError(str(error), code))
        except Exception as error:  # noqa: BLE001  a bug in one answer must not fail its batch
            # Log type and place only: the message may quote the user's data.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = (
                f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
            )
            self.metrics.count(FAILED_REQUESTS, value=FailureReason.INTERNAL)
            _log.error("%s: %s at %s", self.name, type(error).__name__, where)
            message = f"{self.name}: internal error ({type(error).__name__} at {where})"
            return pb.InferenceResponse(error=pb.TritonError(message, pb.TritonError.INTERNAL))

    def _count_refusal(self, error: AdpriorError) -> None:
        if isinstance(error, InvalidRequestError):
            self.metrics.count(INVALID_REQUESTS, value=error.reason)
        else:
            is_over = error.grpc_code == "CANCELLED"
            reason = FailureReason.CANCELLED if is_over else FailureReason.INTERNAL
            self.metrics.count(FAILED_REQUESTS, value=reason)
            if not is_over:
                _log.error("%s: %s: %s", self.name, type(error).__name__, error)

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
                    # Triton checks only the number of inputs.
                    # An optional input can hide a missing one.
                    raise InvalidRequestError(f"{spec.name}: missing")
                continue
            array = tensor.as_numpy()
            if array.shape[0] != 1:
                raise InvalidRequestError(
                    f"{spec.name}: {array.shape[0]} users in one request, expected 1; "
                    "the server batches requests"
                )
            most = MAX_VALUES.get(spec.name, array.size)
            if array.size > most:
                raise InvalidRequestError(
                    f"{spec.name}: found {array.size:,} values, expected at most {most:,}"
                )
            inputs[spec.name] = array[0].copy()
        return inputs
