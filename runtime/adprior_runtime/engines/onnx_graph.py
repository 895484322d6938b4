"""The contract of ``model.onnx``: its inputs and outputs, their types and shapes.

`adprior_build.repository.onnx_export` writes such a graph; the ONNX engine checks it when it loads.
These are names within the graph. They never meet the tensors of Triton's models, whose names are in
`adprior_runtime.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from adprior_runtime.engines.kv_cache import LAYOUT, NEW_LAYOUT
from adprior_runtime.errors import ArtefactError

INPUT_IDS: Final = "input_ids"
POSITION_IDS: Final = "position_ids"
ATTENTION_MASK: Final = "attention_mask"
WANTED_POSITIONS: Final = "wanted_positions"
PAST_KEYS: Final = "past_keys"
PAST_VALUES: Final = "past_values"
LOG_PROBS: Final = "log_probs"
NEW_KEYS: Final = "new_keys"
NEW_VALUES: Final = "new_values"

MAX_POSITIONS: Final = "max_positions"
"""Key of the graph's metadata: the longest sequence that the model takes."""

HALF: Final = "tensor(float16)"
_INTEGER: Final = ("tensor(int64)",)
_SINGLE: Final = ("tensor(float)",)
_CACHED: Final = ("tensor(float)", HALF)
_VARYING: Final = frozenset({"new", "positions", "wanted", "past"})
"""Sizes that differ from pass to pass; all others are fixed by the model."""


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """One input or output.

    Attributes:
        name: Its name in the graph.
        types: Accepted types, as ONNX Runtime names them. A model in half precision has its cache
            in half precision too.
        dims: Its axes: a number is a fixed size, a name stands for a size.
    """

    name: str
    types: tuple[str, ...]
    dims: tuple[int | str, ...]

    @property
    def varying_axes(self) -> dict[int, str]:
        """The axes whose size differs from pass to pass."""
        return {
            axis: size
            for axis, size in enumerate(self.dims)
            if isinstance(size, str) and size in _VARYING
        }

    def describes(self, found: Any) -> bool:
        """Return whether ONNX Runtime's description of a tensor fits."""
        return (
            found.name == self.name
            and found.type in self.types
            and len(found.shape) == len(self.dims)
            and all(map(_fits, self.dims, found.shape))
        )


INPUTS: Final = (
    GraphTensor(INPUT_IDS, _INTEGER, (1, "new")),
    GraphTensor(POSITION_IDS, _INTEGER, (1, "new")),
    # Added to the attention scores; positions = past + new.
    GraphTensor(ATTENTION_MASK, _SINGLE, (1, 1, "new", "positions")),
    # Indices into the new positions.
    GraphTensor(WANTED_POSITIONS, _INTEGER, ("wanted",)),
    GraphTensor(PAST_KEYS, _CACHED, LAYOUT),
    GraphTensor(PAST_VALUES, _CACHED, LAYOUT),
)
OUTPUTS: Final = (
    GraphTensor(LOG_PROBS, _SINGLE, (1, "wanted", "vocabulary")),
    GraphTensor(NEW_KEYS, _CACHED, NEW_LAYOUT),
    GraphTensor(NEW_VALUES, _CACHED, NEW_LAYOUT),
)
OUTPUT_NAMES: Final = tuple(tensor.name for tensor in OUTPUTS)


def check_graph(session: Any) -> None:
    """Refuse a graph with other inputs or outputs.

    Args:
        session: An ``onnxruntime.InferenceSession``.

    Raises:
        ArtefactError: A tensor is missing, superfluous, or of another type or shape.
    """
    for kind, expected, found in (
        ("input", INPUTS, session.get_inputs()),
        ("output", OUTPUTS, session.get_outputs()),
    ):
        by_name = {tensor.name: tensor for tensor in found}
        if superfluous := sorted(set(by_name) - {tensor.name for tensor in expected}):
            raise ArtefactError(f"unexpected {kind} {', '.join(superfluous)}")
        for tensor in expected:
            if tensor.name not in by_name:
                raise ArtefactError(f"no {kind} {tensor.name}")
            if not tensor.describes(by_name[tensor.name]):
                other = by_name[tensor.name]
                raise ArtefactError(
                    f"{kind} {tensor.name}: found {other.type} {other.shape}, "
                    f"expected {' or '.join(tensor.types)} {list(tensor.dims)}"
                )


def _fits(size: int | str, found: int | str | None) -> bool:
    """Return whether an axis of the graph fits the contract. The axis is a fixed number or free."""
    if isinstance(size, int):
        return found == size
    return not isinstance(found, int) if size in _VARYING else isinstance(found, int)
