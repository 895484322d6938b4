"""What a position sees in packed tree attention: the prompt, and its own ancestors."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]
_MASKED: Final = np.finfo(np.float32).min


def lineages(parents: _Int64Array, count: int) -> _Int64Array:
    """Return each new node with its ancestors: int64 [count, deepest], padded with the node.

    Args:
        parents: int64 [nodes], the node that each node continues; the last ``count`` are new.
        count: The number of new nodes.
    """
    nodes = np.arange(len(parents) - count, len(parents))
    levels, above = [nodes], parents[nodes]
    while (above != ROOT).any():  # one round for each level of the deepest node
        levels.append(np.where(above == ROOT, nodes, above))
        above = np.where(above == ROOT, ROOT, parents[above])
    return np.stack(levels, axis=1)


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


def node_depths(before: _Int64Array, parents: _Int64Array) -> _Int64Array:
    """Return the depth of each new node; a child of the prompt's end has depth 0.

    Args:
        before: int64 [nodes], the depths of the nodes of earlier calls.
        parents: int64 [new], the node that each new node continues.

    Raises:
        ValueError: A parent comes after its child.
    """
    start, depths = len(before), np.zeros(len(parents), dtype=np.int64)
    earlier = (parents >= 0) & (parents < start)
    depths[earlier] = before[parents[earlier]] + 1
    waiting = np.flatnonzero(parents >= start)
    ready = parents < start
    while len(waiting):  # one round for each link of this call's longest chain
        places = parents[waiting] - start
        can = (places < waiting) & ready[np.minimum(places, waiting)]
        if not can.any():
            raise ValueError("extend: a node's parent must come before it")
        depths[waiting[can]] = depths[places[can]] + 1
        ready[waiting[can]] = True
        waiting = waiting[~can]
    return depths
