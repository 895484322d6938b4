"""The positions that a token sees in packed tree attention: the prompt and its own ancestors."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]
_MASKED: Final = np.finfo(np.float32).min


def lineages(parents: _Int64Array, count: int) -> tuple[_Int64Array, _Int64Array]:
    """Return each new node with its ancestors, and their number.

    Args:
        parents: int64 [nodes], the node that each node continues; the last ``count`` are new.
        count: The number of new nodes.

    Returns:
        int64 [count, deepest], the node itself first, padded with the node; and int64 [count], the
        number of its ancestors.

    Raises:
        ValueError: A new node comes before its parent.
    """
    nodes = np.arange(len(parents) - count, len(parents))
    levels, above = [nodes], parents[len(parents) - count :]
    if (above >= nodes).any():
        raise ValueError("extend: a node's parent must come before it")
    # The root is node -1, so the last element says that the root's parent is the root.
    or_root = np.concatenate([parents, [ROOT]])
    while above.max(initial=ROOT) > ROOT:  # one round for each level of the deepest node
        levels.append(above)
        above = or_root[above]
    lineage = np.concatenate(levels).reshape(len(levels), count)
    is_node = lineage > ROOT
    return np.where(is_node, lineage, nodes).T, is_node.sum(axis=0) - 1


def additive_mask(visible: _Int64Array, seen: _Int64Array, positions: int) -> _Float32Array:
    """Return the mask that is added to attention scores: float32 [new, positions].

    Args:
        visible: int64 [new], how many positions of the sequence's begin each new one sees.
        seen: int64 [new, any], further positions that it sees.
        positions: The sequence's length, new positions included.
    """
    mask = np.where(np.arange(positions) < visible[:, None], np.float32(0), _MASKED)
    mask[np.arange(len(seen))[:, None], seen] = 0
    return mask
