"""Hypothesis strategies of malformed requests: contexts, tensors and bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from adprior_runtime import contract
from adprior_runtime.contract import Target
from adprior_runtime.repository.model_specs import Tensor, model

_NUMPY: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}
_DTYPES = [*_NUMPY, "BYTES", "FP64", "FP16", "UINT64", "INT8", "BF16", "", "STRING"]
_TIMES = st.sampled_from(
    ["2022-12-01", "2022-11-30T23:59:59Z", "2022-11-30T23:59:59+14:00", "9999-12-31", ""]
) | st.sampled_from(
    ["0001-01-01", "yesterday", "2022-13-01", "1" * 400, "2022-12-01T00:00:00.123456789Z"]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["\ud800", "\0", "麦穗" * 400, "a" * 70_000, "\u202e", "<|endoftext|>"])
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
_PROFILE_KEYS = st.sampled_from(["age", "gender", "state", "household_size"]) | st.text(max_size=12)
_EVENT = st.fixed_dictionaries(
    {"time": _TIMES, "action": st.sampled_from(["purchase", "click"]) | st.text(max_size=9)},
    optional={
        "advertiser": st.sampled_from(["Purina", "Acme", ""]) | st.text(max_size=50),
        "category": st.sampled_from(["PET_FOOD"]) | st.text(max_size=50),
        "text": st.text(max_size=200),
        "surprise": _LEAVES,
    },
)
_CONTEXT = st.fixed_dictionaries(
    {"as_of": st.just("2022-12-01") | _TIMES},
    optional={
        "profile": st.dictionaries(_PROFILE_KEYS, _LEAVES, max_size=6) | _JSON,
        "history": st.lists(_EVENT, max_size=40) | st.lists(_EVENT | _JSON, max_size=4) | _JSON,
        "unknown": _JSON,
    },
)
_NOT_JSON = st.binary(max_size=200) | st.sampled_from(
    [
        b"",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"as_of":' * 2_000,
        b'{"as_of": 1e999}',
        b'{"as_of": NaN}',
        b'{"as_of": "2022-12-01", "as_of": 3}',
        b'{"as_of": "2022-12-01", "profile": {"age": ' + b"9" * 5_000 + b"}}",
        b" " * (contract.MAX_CONTEXT_BYTES + 1),
        b'{"as_of": "2022-12-01", "profile": {' + b'"a": 1, ' * 30_000 + b'"b": 2}}',
        b"\xef\xbb\xbf{}",
        b"null",
    ]
)


def _to_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def contexts() -> st.SearchStrategy[bytes]:
    """User contexts: most nearly right, some any JSON, some not JSON."""
    return st.one_of(
        _CONTEXT.map(_to_bytes), _CONTEXT.map(_to_bytes), _JSON.map(_to_bytes), _NOT_JSON
    )


@st.composite
def context_requests(draw: st.DrawFn) -> Any:
    """A context for a model that takes one; its other tensors are right, or nearly."""
    names = [contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING, contract.TOKENIZER]
    name = draw(st.sampled_from(names))
    request = service_pb2.ModelInferRequest(model_name=name)
    for tensor in model(name, Target.CPU).inputs:
        if tensor.name == contract.USER_CONTEXT:
            _add(request, tensor.name, "BYTES", [1, 1], _length_prefixed([draw(contexts())]))
        elif tensor.name == contract.TOP_K:
            if draw(st.booleans()):
                top_k = draw(st.integers(1, 50) | st.sampled_from([0, -1, 1001, 2**31 - 1]))
                _add(request, tensor.name, "INT32", [1, 1], struct.pack("<i", top_k))
        elif not tensor.optional or draw(st.booleans()):
            values = np.arange(5, dtype=_NUMPY[tensor.dtype])
            _add(request, tensor.name, tensor.dtype, [1, 5], values.tobytes())
    return request


@st.composite
def tensor_requests(draw: st.DrawFn) -> Any:
    """Tensors for any model: most have the right name, type, shape, size and value."""
    name = draw(st.sampled_from(contract.MODEL_NAMES))
    request = service_pb2.ModelInferRequest(model_name=name)
    length = draw(st.integers(0, 30) | st.integers(1, 10))
    is_sound = draw(st.integers(0, 2)) > 0  # then only values may be wrong
    for tensor in model(name, Target.CPU).inputs:
        if tensor.optional and draw(st.booleans()):
            continue
        if not is_sound and draw(st.integers(0, 19)) == 0:
            continue  # missing
        _add_tensor(draw, request, tensor, length, is_sound=is_sound)
    return request


def _add_tensor(
    draw: st.DrawFn, request: Any, tensor: Tensor, length: int, *, is_sound: bool
) -> None:
    dtype, shape = tensor.dtype, [1, *(length if size == -1 else size for size in tensor.dims)]
    if not is_sound and draw(st.integers(0, 9)) == 0:
        dtype = draw(st.sampled_from(_DTYPES))
    if not is_sound and draw(st.integers(0, 9)) == 0:
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 17, -1, 2**40]), max_size=4))
    count = int(np.prod(shape)) if shape and max(shape) < 2**20 else 1
    if tensor.name in _SOUND and dtype == tensor.dtype and draw(st.integers(0, 4)) > 0:
        values = np.resize(_SOUND[tensor.name](length), max(0, count))
        raw = values.astype(_NUMPY[dtype]).tobytes()
    else:
        raw = _values(draw, dtype, max(0, count))
    if not is_sound and draw(st.integers(0, 9)) == 0:
        raw = draw(st.sampled_from([b"", raw[:-1], raw + b"\0", raw * 2, b"\xff" * 8]))
    _add(request, tensor.name, dtype, shape, raw)


# Values that pass the first check, so that later checks are reached too.
_SOUND: dict[str, Any] = {
    contract.INPUT_LENGTHS: lambda length: [length],
    contract.SEQUENCE_LENGTH: lambda length: [max(1, length // 2)],
    contract.CUM_LOG_PROBS: lambda length: [-np.log(length + 1) - 0.1],
    contract.BEAM_WIDTH: lambda _: [32],
    contract.ADVERTISER_IDS: np.arange,
    contract.LOG_PROBS: lambda length: -np.log(length + 1) - np.arange(length) / 10,
    contract.MISSING_MASS: lambda _: [0.1],
    contract.TOP_K: lambda _: [20],
}
_INTEGERS = st.sampled_from([0, 1, 2, 3, 5, 20, 100, 214, 4000, -1, -2, 2**31 - 1, -(2**31)])
_LOGS = st.floats(-20, 0, width=32)
_FLOATS = st.one_of(
    _LOGS, _LOGS, st.floats(width=32), st.sampled_from([float("nan"), float("inf"), float("-inf")])
)


def _values(draw: st.DrawFn, dtype: str, count: int) -> bytes:
    if dtype in {"BYTES", "STRING", ""}:
        return _length_prefixed([draw(contexts()) for _ in range(min(count, 3))])
    if dtype not in _NUMPY:
        return bytes(2 * count)
    if dtype == "FP32":
        # One wrong value among a few is enough: the first wrong one is refused.
        values = draw(st.lists(draw(st.sampled_from([_LOGS, _FLOATS])), max_size=8))
    else:
        small = st.integers(0, 30)
        values = draw(st.lists(draw(st.sampled_from([small, _INTEGERS])), max_size=8))
    filled = np.resize(np.array(values or [1], dtype=np.float64), count)
    with np.errstate(all="ignore"):
        return filled.astype(_NUMPY[dtype]).tobytes()


@st.composite
def wire_bytes(draw: st.DrawFn) -> bytes:
    """A request's bytes with some changed, deleted or inserted; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    request = draw(st.one_of(tensor_requests(), context_requests()))
    data = bytearray(request.SerializeToString())
    # The structure is at the beginning, the tensors' values at the end.
    first = draw(st.sampled_from([0, 2 * len(data) // 3]))
    changes = ["set"] if first else ["set", "set", "insert", "delete", "truncate"]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(min(first, len(data)), len(data)))
        change = draw(st.sampled_from(changes))
        if change == "set" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif change == "insert":
            data[place:place] = draw(st.binary(max_size=8))
        elif change == "delete":
            del data[place : place + draw(st.integers(1, 8))]
        elif change == "truncate":
            del data[place:]
    return bytes(data)


def _add(request: Any, name: str, dtype: str, shape: list[int], raw: bytes) -> None:
    tensor = request.inputs.add(name=name, datatype=dtype)
    tensor.shape.extend(shape)
    request.raw_input_contents.append(raw)


def _length_prefixed(values: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
