"""The ONNX engine's KV cache: one user's keys and values, for the prompt and for the tree below it.

A pass takes the keys and values of each layer, and returns them with those of its new positions. So
they are copied once in a pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(slots=True)
class KvCache:
    """One user's keys and values.

    Attributes:
        tensors: ONNX Runtime's values in the order of `adprior_runtime.engines.onnx_graph`, each
            [1, key_value_heads, positions, head_size]. A pass replaces them and changes none.
    """

    tensors: list[Any]

    def fork(self) -> Self:
        """Return a copy that grows independently."""
        return type(self)(self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.tensor_size_in_bytes() for tensor in self.tensors)
