"""The contract of ``model.onnx``: its inputs and outputs, their types and shapes.

`adprior_build.onnx_graph` writes such a graph; the ONNX engine checks it when it loads. These are
names within the graph. They never meet the tensors of Triton's models, whose names are in
`adprior_runtime.contract`.

A graph returns ``logit - logsumexp(logits)`` of the pairs that are asked for, and nothing else of
the vocabulary. Logits are computed for a part of the vocabulary at a time
(`adprior_runtime.engines.base.VOCABULARY_CHUNK`), and their sum in single precision, whatever the
precision of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from adprior_runtime.engines.tree_pass import TreePass
from adprior_runtime.errors import ArtefactError

CONTRACT_VERSION: Final = "3"
"""Raised whenever inputs, outputs or their meaning change."""

INPUT_IDS: Final = "input_ids"
POSITION_IDS: Final = "position_ids"
KEY_POSITIONS: Final = "key_positions"
ATTENTION_MASK: Final = "attention_mask"
WANTED_POSITIONS: Final = "wanted_positions"
PAIR_ROWS: Final = "pair_rows"
PAIR_TOKENS: Final = "pair_tokens"
LOG_PROBS: Final = "log_probs"

# Keys of the graph's metadata.
CONTRACT: Final = "contract"
MAX_POSITIONS: Final = "max_positions"
"""The longest sequence that the model takes."""
VOCABULARY: Final = "vocabulary"
LAYERS: Final = "layers"

INTEGER: Final = "tensor(int64)"
SINGLE: Final = "tensor(float)"
_VARYING: Final = frozenset({"new", "positions", "wanted", "pairs", "past"})
"""Sizes that differ from pass to pass; all others are fixed by the model."""


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """One input or output.

    Attributes:
        name: Its name in the graph.
        type: Its type, as ONNX Runtime names it.
        dims: Its axes: a number is a fixed size, a name stands for a size.
    """

    name: str
    type: str
    dims: tuple[int | str, ...]

    def describes(self, found: Any) -> bool:
        """Return whether ONNX Runtime's description of a tensor fits."""
        return (
            found.name == self.name
            and found.type == self.type
            and len(found.shape) == len(self.dims)
            and all(map(_fits, self.dims, found.shape))
        )


INPUTS: Final = (
    GraphTensor(INPUT_IDS, INTEGER, (1, "new")),
    # The position of each new token, and of each token it may see: positions = past + new.
    GraphTensor(POSITION_IDS, INTEGER, (1, "new")),
    GraphTensor(KEY_POSITIONS, INTEGER, (1, "positions")),
    # Added to the attention scores.
    GraphTensor(ATTENTION_MASK, SINGLE, (1, 1, "new", "positions")),
    # Distinct indices into the new tokens; only these are normalised over the vocabulary.
    GraphTensor(WANTED_POSITIONS, INTEGER, ("wanted",)),
    # Each pair asks for one log-probability: of a token, after a wanted position (its index).
    GraphTensor(PAIR_ROWS, INTEGER, ("pairs",)),
    GraphTensor(PAIR_TOKENS, INTEGER, ("pairs",)),
)
"""A pass's inputs but the cache."""

OUTPUTS: Final = (GraphTensor(LOG_PROBS, SINGLE, ("pairs",)),)
"""A pass's outputs but the cache."""


def past_tensors(layers: int) -> list[GraphTensor]:
    """Return the inputs that hold the cache: keys and values of each layer in turn."""
    dims = (1, "key_value_heads", "past", "head_size")
    return [GraphTensor(f"past_{name}", SINGLE, dims) for name in _cache_names(layers)]


def cache_tensors(layers: int) -> list[GraphTensor]:
    """Return the outputs that hold the cache with the new positions, in the inputs' order."""
    dims = (1, "key_value_heads", "positions", "head_size")
    return [GraphTensor(name, SINGLE, dims) for name in _cache_names(layers)]


def _cache_names(layers: int) -> list[str]:
    return [f"{kind}.{layer}" for layer in range(layers) for kind in ("keys", "values")]


def graph_inputs(tree_pass: TreePass) -> dict[str, npt.NDArray[Any]]:
    """Return a pass's inputs but the cache, by name."""
    return {
        INPUT_IDS: tree_pass.token_ids[None],
        POSITION_IDS: tree_pass.new_positions[None],
        KEY_POSITIONS: tree_pass.positions[None],
        ATTENTION_MASK: tree_pass.mask()[None, None],
        WANTED_POSITIONS: tree_pass.wanted,
        PAIR_ROWS: tree_pass.pair_rows,
        PAIR_TOKENS: tree_pass.pair_tokens,
    }


def check_graph(session: Any) -> None:
    """Refuse a graph of another contract, or with other inputs or outputs.

    Args:
        session: An ``onnxruntime.InferenceSession``.

    Raises:
        ArtefactError: A tensor is missing, superfluous, or of another type or shape.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    require_contract(metadata)
    layers = int(metadata[LAYERS])
    for kind, expected, found in (
        ("input", [*INPUTS, *past_tensors(layers)], session.get_inputs()),
        ("output", [*OUTPUTS, *cache_tensors(layers)], session.get_outputs()),
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
                    f"expected {tensor.type} {list(tensor.dims)}"
                )


def require_contract(metadata: Mapping[str, str]) -> None:
    """Refuse a graph that an earlier or later version wrote.

    Args:
        metadata: The graph's.

    Raises:
        ArtefactError: It has another contract.
    """
    if (found := metadata.get(CONTRACT)) != CONTRACT_VERSION:
        raise ArtefactError(
            f"the graph has contract {found or 1}, expected {CONTRACT_VERSION}: another version of "
            "adprior wrote it; build the bundle again from its checkpoint"
        )


def _fits(size: int | str, found: int | str | None) -> bool:
    """Return whether an axis of the graph fits the contract. The axis is a fixed number or free."""
    if isinstance(size, int):
        return found == size
    return not isinstance(found, int) if size in _VARYING else isinstance(found, int)
