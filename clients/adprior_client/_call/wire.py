"""Everything that both drivers exchange with tritonclient: requests, settings, answers, errors."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import (
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

from adprior_client._call.causes import find_cause
from adprior_client._call.proxy import Proxy, is_loopback
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    BadAnswerError,
    CancelledError,
    ClientError,
    error_for_status,
)
from adprior_client.server_sources import Address
from adprior_runtime.contract import MAX_CONTEXT_BYTES, MODEL_NAMES, Target
from adprior_runtime.repository.model_specs import Tensor, model
from adprior_runtime.text.json_text import to_json

# The models that clients call have the same tensors on CPU and GPU.
_SPECS: Final = {name: model(name, Target.CPU) for name in MODEL_NAMES}
_NUMPY_TYPES: Final[dict[str, type[np.generic]]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}
_RETRIED: Final = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
_MAX_ANSWER_BYTES: Final = 64 << 20
"""Larger answers are refused; the contract's largest one is many times smaller."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A request that can be sent to any server.

    Attributes:
        model: A model of the contract.
        inputs: The inputs, for tritonclient.
        outputs: The outputs wanted, for tritonclient.
        wanted: The contract's entries of these outputs.
        priority: One of `contract.Priority`.
    """

    model: str
    inputs: list[InferInput]
    outputs: list[InferRequestedOutput]
    wanted: list[Tensor]
    priority: int

    @classmethod
    def of(
        cls,
        model_name: str,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        priority: int,
    ) -> Request:
        """Return a request; ``tensors`` are inputs by name, 1-D: the batch dimension is added."""
        spec = _SPECS[model_name]
        return cls(
            model=model_name,
            inputs=[_to_input(t, tensors[t.name]) for t in spec.inputs if t.name in tensors],
            outputs=[InferRequestedOutput(name) for name in outputs],
            wanted=[tensor for tensor in spec.outputs if tensor.name in outputs],
            priority=int(priority),
        )

    def arguments(self, timeout_s: float, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments of tritonclient's ``infer``, for both of its clients."""
        return {
            "model_name": self.model,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "priority": self.priority,
            "client_timeout": timeout_s,
            "timeout": int(1e6 * timeout_s),  # for the server's steps, in microseconds
            "headers": headers,
        }


def channel_settings(config: ClientConfig, address: Address, *, is_only: bool) -> dict[str, Any]:
    """Return the settings of a channel: gRPC's arguments, for tritonclient's clients.

    gRPC itself retries on a server that is the only one, with exponential back-off and jitter,
    within the call's deadline. A server on loopback is never reached through a proxy. An address
    found under a DNS name stands for that name: in certificates, and in exemptions from the proxy.
    """
    attempts = config.max_attempts if is_only else 1
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": f"{config.initial_backoff_s:.9f}s",
        "maxBackoff": f"{config.max_backoff_s:.9f}s",
        "backoffMultiplier": config.backoff_multiplier,
        "retryableStatusCodes": _RETRIED,
    }
    method: dict[str, Any] = {"name": [{}]} | ({"retryPolicy": policy} if attempts > 1 else {})
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),  # arguments are limited where they are checked
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.keepalive_time_ms", int(1000 * config.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", int(1000 * config.keepalive_timeout_s)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2000),  # the timeout of connecting, TLS included
        ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's default is two minutes
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", 4 * MAX_CONTEXT_BYTES),
        ("grpc.service_config", to_json({"methodConfig": [method]})),
    ]
    # The environment may exempt a DNS name, and not its addresses.
    is_exempt = bool(address.name) and Proxy.of(address.named_url) is None
    if is_exempt or is_loopback(address.url) or not config.use_proxy:
        arguments.append(("grpc.enable_http_proxy", 0))
    if config.tls_server_name is not None or (config.is_secure and address.name):
        name = config.tls_server_name or address.name
        arguments.append(("grpc.ssl_target_name_override", name))
    return {"channel_args": arguments}


def read_answer(request: Request, result: InferResult) -> dict[str, NDArray[Any]]:
    """Return the outputs wanted, with the contract's types and without the batch dimension.

    Raises:
        BadAnswerError: An output is missing, or breaks the contract.
    """
    return {tensor.name: _from_output(tensor, result) for tensor in request.wanted}


def error_of(
    error: Exception, model_name: str, address: Address, timeout_s: float, config: ClientConfig
) -> ClientError:
    """Return an exception of tritonclient or gRPC as an error of this package.

    Args:
        error: The exception.
        model_name: The model that was called.
        address: The server's address.
        timeout_s: The timeout of the attempt.
        config: The client's settings, to find the cause.
    """
    place = f"{model_name} at {address.url}"
    if isinstance(error, InferenceServerException):
        detail = " ".join((error.message() or "no reason given").split())
        if str(error.status()).endswith("DEADLINE_EXCEEDED"):
            detail = f"no answer within {timeout_s:.3g} s"
        cause = find_cause(detail, address, config)
        message = f"{place}: {detail}; {cause}" if cause else f"{place}: {detail}"
        found = error_for_status(error.status(), message)
        found.cause = cause
        return found
    if isinstance(error, ValueError) and "closed channel" in str(error):
        return CancelledError(f"{place}: the client was closed")
    return BadAnswerError(f"{place}: {type(error).__name__} on reading the answer")


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
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise BadAnswerError(
            f"{tensor.name}: its bytes do not make up {tensor.dtype}{list(shape)}"
        ) from error
    return np.asarray(values, dtype=_NUMPY_TYPES[tensor.dtype])
