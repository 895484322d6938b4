"""Collects the nodes and weights of an ONNX model, and writes them as one file.

Weights are made one at a time while the file is written, so a model needs little more memory than
its largest matrix. An ONNX file is a protocol-buffers message: a field may come in any order, and a
message that holds another begins with its size. The sizes follow from the weights' shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, TensorProto, helper

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

MAX_BYTES: Final = 2**31 - 1
"""The largest message of protocol buffers."""

ORT: Final = "com.microsoft"
"""The operators of ONNX Runtime that are not in the standard."""

_OPSETS: Final = {"": 21, ORT: 1}
_IR_VERSION: Final = 10
_TYPES: Final = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int64): TensorProto.INT64,
}


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant of the graph.

    Attributes:
        name: Its name in the graph.
        dtype, shape: As `make` returns them.
        make: Computes the values.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], npt.NDArray[Any]]

    def header(self) -> bytes:
        """Return the message up to the values."""
        tensor = TensorProto(name=self.name, data_type=_TYPES[self.dtype], dims=self.shape)
        description: bytes = tensor.SerializeToString()
        return description + _tag(TensorProto, "raw_data") + _varint(self.value_bytes)

    @property
    def value_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class ModelFile:
    """An ONNX model in the making."""

    def __init__(self) -> None:
        self._graph = GraphProto(name="language_model")
        self._weights: dict[str, _Weight] = {}
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, element: int, dims: Sequence[int | str]) -> str:
        """Declare an input; ``element`` is a type of `onnx.TensorProto`."""
        self._graph.input.append(helper.make_tensor_value_info(name, element, list(dims)))
        return name

    def output(self, name: str, source: str, element: int, dims: Sequence[int | str]) -> None:
        """Declare that the value ``source`` is the output ``name``."""
        self._graph.node.append(helper.make_node("Identity", [source], [name]))
        self._graph.output.append(helper.make_tensor_value_info(name, element, list(dims)))

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node of one output; return the output's name. An empty input is left out."""
        return self.nodes(kind, *inputs, domain=domain, outputs=1, **attributes)[0]

    def nodes(
        self,
        kind: str,
        *inputs: str,
        domain: str = "",
        outputs: int,
        unused: Sequence[int] = (),
        **attributes: Any,
    ) -> list[str]:
        """Append a node; return the names of its outputs, empty for the unused ones."""
        number = len(self._graph.node)
        names = ["" if place in unused else f"{kind}.{number}.{place}" for place in range(outputs)]
        self._graph.node.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """Return the name of a small constant; equal ones are stored once."""
        array = np.ascontiguousarray(values, dtype=dtype).reshape(np.shape(values))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._small:
            name = f"constant.{len(self._small)}"
            self._small[key] = self.weight(name, array.dtype, array.shape, lambda: array)
        return self._small[key]

    def weight(
        self,
        name: str,
        dtype: npt.DTypeLike,
        shape: Sequence[int],
        make: Callable[[], npt.NDArray[Any]],
        *,
        is_packed: bool = True,
    ) -> str:
        """Declare a constant whose values are computed when the file is written.

        Args:
            name: Its name.
            dtype: The type of its numbers.
            shape: Its sizes.
            make: Computes it.
            is_packed: Whether ONNX Runtime may keep a copy that is packed for products. If not, the
                graph declares it as an input with a default, which ONNX Runtime leaves as it is.
        """
        self._weights[name] = _Weight(name, np.dtype(dtype), tuple(shape), make)
        if not is_packed:
            self.input(name, _TYPES[np.dtype(dtype)], shape)
        return name

    def write(
        self,
        path: Path,
        metadata: Mapping[str, str],
    ) -> None:
        """Write the file, with a progress bar if it takes long.

        Args:
            path: The file.
            metadata: Keys and values for the readers of the graph.

        Raises:
            InvalidInputError: The file would exceed `MAX_BYTES`.
        """
        model = ModelProto(ir_version=_IR_VERSION, producer_name="adprior")
        model.opset_import.extend(helper.make_opsetid(*item) for item in _OPSETS.items())
        helper.set_model_props(model, dict(metadata))
        description: bytes = model.SerializeToString()
        nodes: bytes = self._graph.SerializeToString()
        headers = [weight.header() for weight in self._weights.values()]
        sizes = [
            len(header) + weight.value_bytes
            for header, weight in zip(headers, self._weights.values(), strict=True)
        ]
        tag = _tag(GraphProto, "initializer")
        whole = len(nodes) + sum(len(tag) + len(_varint(size)) + size for size in sizes)
        if whole + len(description) > MAX_BYTES - 64:
            raise InvalidInputError(
                f"the graph has {whole / 1e9:.1f} GB, one ONNX file holds at most "
                f"{MAX_BYTES / 1e9:.1f} GB; build with a --precision of fewer bits"
            )
        with path.open("wb") as file:
            file.write(description + _tag(ModelProto, "graph") + _varint(whole) + nodes)
            weights = list(zip(headers, sizes, self._weights.values(), strict=True))
            for header, size, weight in track(weights, desc="writing the graph", unit="weight"):
                file.write(tag + _varint(size) + header)
                _write_values(file, weight)


def _write_values(file: BinaryIO, weight: _Weight) -> None:
    values = weight.make()
    if values.dtype != weight.dtype or values.shape != weight.shape:
        raise ValueError(
            f"{weight.name}: found {values.dtype} {values.shape}, "
            f"expected {weight.dtype} {weight.shape}"
        )
    file.write(np.ascontiguousarray(values).data)


def _tag(message: Any, field: str) -> bytes:
    """Return the bytes that begin a field of a message whose content has a size."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _varint(number: int) -> bytes:
    """Return a number as protocol buffers write sizes: 7 bits a byte, the lowest first."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
