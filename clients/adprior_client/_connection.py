"""One gRPC channel, one way to call a model over it: shared by both clients.

Everything that decides when and where to call again (retries, hedging, fail-over) belongs around
`Connection._infer`, which makes exactly one attempt.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import (
    InferenceServerClient,
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

from adprior_client.errors import (
    BadAnswerError,
    ClientError,
    DeadlineError,
    InvalidArgumentError,
    error_for_status,
)
from adprior_runtime.contract import MODEL_NAMES, Target, Tensor, model

__all__ = ["Connection"]

# The models that clients call have the same tensors on both targets.
_SPECS: Final = {name: model(name, Target.CPU) for name in MODEL_NAMES}
_NUMPY_TYPES: Final[dict[str, type[np.generic]]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}


class Connection:
    """Owns the channel to one server; a context manager. Opening it does not reach out yet.

    Args:
        url: ``HOST:PORT`` of the server's gRPC endpoint.
        timeout_s: Deadline of each call, in seconds.

    Raises:
        InvalidArgumentError: The address or the deadline is malformed.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        host, _, port = url.rpartition(":") if isinstance(url, str) else ("", "", "")
        if not host or not port.isdecimal() or "/" in url:
            raise InvalidArgumentError(f"url: found {url!r}, expected HOST:PORT")
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
            raise InvalidArgumentError(
                f"timeout_s: found {type(timeout_s).__name__}, expected a number of seconds"
            )
        if not math.isfinite(timeout_s) or timeout_s <= 0:
            raise InvalidArgumentError(f"timeout_s: found {timeout_s}, expected more than 0")
        self._url = url
        self._timeout_s = timeout_s
        self._grpc: Any = InferenceServerClient(url)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way fail, later ones are refused. May be repeated."""
        if not self._closed:
            self._closed = True
            self._grpc.close()

    def _infer(
        self, model_name: str, tensors: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Call a model once and return the wanted outputs, checked against the contract.

        Args:
            model_name: A model of the contract.
            tensors: Inputs by name, 1-D: the batch dimension is added here.
            outputs: Names of the outputs wanted.

        Returns:
            The outputs by name, typed as in the contract, without the batch dimension.

        Raises:
            ClientError: By the gRPC status; BadAnswerError when an output breaks the contract.
        """
        if self._closed:
            raise ClientError(f"{model_name} at {self._url}: this client is closed")
        spec = _SPECS[model_name]
        inputs = [_to_input(t, tensors[t.name]) for t in spec.inputs if t.name in tensors]
        try:
            result = self._grpc.infer(
                model_name,
                inputs,
                outputs=[InferRequestedOutput(name) for name in outputs],
                client_timeout=self._timeout_s,
            )
        except InferenceServerException as error:
            raise self._explain(model_name, error) from error
        wanted = [tensor for tensor in spec.outputs if tensor.name in outputs]
        return {tensor.name: _from_output(tensor, result) for tensor in wanted}

    def _explain(self, model_name: str, error: InferenceServerException) -> ClientError:
        kind = error_for_status(error.status())
        detail = " ".join((error.message() or "no reason given").split())
        if kind is DeadlineError:
            detail = f"no answer within {self._timeout_s:g} s"
        return kind(f"{model_name} at {self._url}: {detail}")


def _to_input(tensor: Tensor, values: NDArray[Any]) -> InferInput:
    infer_input = InferInput(tensor.name, [1, values.size], tensor.dtype)
    infer_input.set_data_from_numpy(values[np.newaxis])
    return infer_input


def _from_output(tensor: Tensor, result: InferResult) -> NDArray[Any]:
    expected = f"{tensor.dtype}[1, {'n' if tensor.ragged else 1}]"
    described = result.get_output(tensor.name)
    if described is None:
        raise BadAnswerError(f"{tensor.name}: missing in the answer, expected {expected}")
    shape = tuple(described.shape)
    one_row = len(shape) == 2 and shape[0] == 1 and (tensor.ragged or shape[1] == 1)
    if described.datatype != tensor.dtype or not one_row:
        raise BadAnswerError(
            f"{tensor.name}: found {described.datatype}{list(shape)}, expected {expected}"
        )
    try:
        values = result.as_numpy(tensor.name)[0]
    except (ValueError, struct.error) as error:
        raise BadAnswerError(
            f"{tensor.name}: its bytes do not make up {tensor.dtype}{list(shape)}"
        ) from error
    return np.asarray(values, dtype=_NUMPY_TYPES[tensor.dtype])
