"""Requests made of tensors, without the checks of the clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from adprior_runtime import contract
from adprior_runtime.contract import Target
from adprior_runtime.repository import model_specs

_TYPES = {
    "BOOL": np.bool_,
    "BYTES": np.object_,
    "FP32": np.float32,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
}


def context_tensor(context: Mapping[str, Any] | bytes) -> list[bytes]:
    """Return the value of ``USER_CONTEXT``; bytes are not changed."""
    return [context if isinstance(context, bytes) else json.dumps(context).encode()]


def make_inputs(
    model: str, tensors: Mapping[str, Any], *, target: Target = Target.CPU, users: int = 1
) -> list[triton.InferInput]:
    """Return a model's inputs with the contract's types; ignore tensors that it does not have.

    Args:
        model: Its name.
        tensors: Values without the batch dimension.
        target: The configuration that the server runs.
        users: The batch dimension; all users get the same values.
    """
    inputs = []
    for spec in model_specs.model(model, target).inputs:
        if spec.name in tensors:
            values = np.array([tensors[spec.name]] * users, dtype=_TYPES[spec.dtype])
            inputs.append(triton.InferInput(spec.name, values.shape, spec.dtype))
            inputs[-1].set_data_from_numpy(values)
    return inputs


def infer(
    address: str,
    model: str,
    tensors: Mapping[str, Any],
    *,
    target: Target = Target.CPU,
    users: int = 1,
) -> triton.InferResult:
    """Send one request over plain gRPC and return the answer."""
    inputs = make_inputs(model, tensors, target=target, users=users)
    with triton.InferenceServerClient(address) as connection:
        return connection.infer(model, inputs, client_timeout=60)


def infer_context(address: str, context: Mapping[str, Any] | bytes) -> triton.InferResult:
    """Request the forecast of one user context."""
    tensors = {contract.USER_CONTEXT: context_tensor(context)}
    return infer(address, contract.ADVERTISER_RETRIEVAL, tensors)
