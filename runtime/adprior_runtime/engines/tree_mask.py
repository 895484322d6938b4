"""The mask of packed tree attention: each position sees the prompt and its own ancestors."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]
_MASKED: Final = np.finfo(np.float32).min


def causal_mask(length: int, start: int = 0) -> _Float32Array:
    """Return the additive mask of a plain sequence, from ``start``: float32 [rest, length]."""
    is_ahead = np.arange(length) > np.arange(start, length)[:, None]
    return np.where(is_ahead, _MASKED, np.float32(0))


def tree_mask(prompt_length: int, parents: _Int64Array, count: int) -> _Float32Array:
    """Return the additive mask of new nodes below a prompt: float32 [count, prompt + nodes].

    Args:
        prompt_length: Tokens of the prompt.
        parents: int64 [nodes], the node that each node continues; the last ``count`` are new.
        count: The number of new nodes.
    """
    mask = np.full((count, prompt_length + len(parents)), _MASKED, dtype=np.float32)
    mask[:, :prompt_length] = 0
    rows = np.arange(count)
    nodes = rows + len(parents) - count
    while len(nodes):  # one round for each level of the deepest node
        mask[rows, prompt_length + nodes] = 0
        above = parents[nodes]
        rows, nodes = rows[above != ROOT], above[above != ROOT]
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
