"""The catalogue's names as a trie of flat arrays.

Every name and alias is one path of token ids that ends with the terminator, so a name that begins
another is no special case. Nodes are numbered breadth-first, root 0; the children of node ``n`` are
``child_tokens[s:e]`` / ``child_nodes[s:e]`` with ``s, e = offsets[n], offsets[n + 1]``, tokens
rising (compressed sparse rows). ``leaf_advertiser[n]`` is the row of the advertiser whose path ends
at ``n``, -1 elsewhere. The arrays are memory-mapped from ``.npy`` files, shared by processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import ArtefactError

__all__ = ["Int32Array", "Trie"]

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trie:
    """Token paths to advertisers; see the module for the layout.

    Attributes:
        offsets: int32 [nodes + 1].
        child_tokens, child_nodes: int32 [nodes - 1].
        leaf_advertiser: int32 [nodes].
    """

    offsets: Int32Array
    child_tokens: Int32Array
    child_nodes: Int32Array
    leaf_advertiser: Int32Array

    @classmethod
    def build(cls, paths: Sequence[Sequence[int]], advertisers: Sequence[int]) -> Trie:
        """Build from token paths and the advertiser row of each.

        Args:
            paths: Terminated token ids, all different.
            advertisers: The advertiser row of each path.
        """
        nested: dict[int, Any] = {}
        for path, row in zip(paths, advertisers, strict=True):
            node = nested
            for token in path[:-1]:
                node = node.setdefault(token, {})
            node[path[-1]] = row
        return cls._flatten(nested)

    @classmethod
    def _flatten(cls, nested: dict[int, Any]) -> Trie:
        offsets, tokens, nodes, leaves = [0], [], [], [-1]
        queue: list[dict[int, Any]] = [nested]
        position = 0
        while position < len(queue):
            for token, child in sorted(queue[position].items()):
                tokens.append(token)
                nodes.append(len(queue))
                is_leaf = not isinstance(child, dict)
                leaves.append(child if is_leaf else -1)
                queue.append({} if is_leaf else child)
            offsets.append(len(tokens))
            position += 1
        as_array = [np.asarray(a, dtype=np.int32) for a in (offsets, tokens, nodes, leaves)]
        return cls(
            offsets=as_array[0],
            child_tokens=as_array[1],
            child_nodes=as_array[2],
            leaf_advertiser=as_array[3],
        )

    def children(self, node: int) -> tuple[Int32Array, Int32Array]:
        """Return the tokens and the nodes of a node's children: int32 [c] each."""
        start, stop = self.offsets[node], self.offsets[node + 1]
        return self.child_tokens[start:stop], self.child_nodes[start:stop]

    def lookup(self, path: Sequence[int]) -> int:
        """Return the advertiser row that a whole path spells, or -1."""
        node = 0
        for token in path:
            tokens, nodes = self.children(node)
            index = int(np.searchsorted(tokens, token))
            if index == len(tokens) or tokens[index] != token:
                return -1
            node = int(nodes[index])
        return int(self.leaf_advertiser[node])

    def save(self, directory: Path) -> None:
        """Write one ``.npy`` file an array into an existing directory."""
        for item in fields(self):
            np.save(directory / f"{item.name}.npy", getattr(self, item.name))

    @classmethod
    def load(cls, directory: Path) -> Trie:
        """Map the arrays of ``directory`` into memory.

        Raises:
            ArtefactError: A file is missing, or the arrays do not fit each other.
        """
        try:
            arrays = {
                item.name: np.load(directory / f"{item.name}.npy", mmap_mode="r")
                for item in fields(cls)
            }
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{directory}: not a trie: {error}") from error
        trie = cls(**arrays)
        nodes = len(trie.leaf_advertiser)
        sizes = (len(trie.offsets), len(trie.child_tokens), len(trie.child_nodes))
        if sizes != (nodes + 1, nodes - 1, nodes - 1) or trie.offsets[-1] != nodes - 1:
            raise ArtefactError(f"{directory}: the trie's arrays do not fit each other: {sizes}")
        return trie
