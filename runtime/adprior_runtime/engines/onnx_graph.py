"""The contract of ``model.onnx``: its inputs and outputs, their types and shapes.

`adprior_build.repository.onnx_export` writes such a graph; the ONNX engine checks it when it loads.
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
"""Sizes that differ from pass to pass; all others are the model's."""


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """One input or output.

    Attributes:
        name: In the graph.
        types: Accepted types, in ONNX Runtime's spelling; the cache is half where the model is.
        dims: A number is fixed, a name stands for a size.
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
        ArtefactError: A tensor is missing or superfluous, or has another type or shape.
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
    """Return whether a graph's axis, a number or else of any size, has a size of the contract."""
    if isinstance(size, int):
        return found == size
    return not isinstance(found, int) if size in _VARYING else isinstance(found, int)
