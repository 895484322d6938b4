"""The catalogue's names as a trie of flat arrays.

Every name and alias is a path of token ids that ends with the terminator, so a name that is the
beginning of another is no special case. Nodes are numbered breadth-first from the root, 0. The
children of node ``n`` are the nodes ``offsets[n] + 1`` to ``offsets[n + 1]``, reached by the rising
tokens ``child_tokens[offsets[n]:offsets[n + 1]]``. This is like the CSR format, but the column
indices are not stored. ``leaf_advertiser[n]`` is the row of the advertiser whose path ends at
``n``, else -1.
The leaves of advertiser ``a`` are ``leaf_nodes[leaf_offsets[a]:leaf_offsets[a + 1]]``. Processes
share the arrays, which are mapped from ``.npy`` files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.arrays import load_arrays, save_arrays
from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.errors import ArtefactError

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

_NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True)
class Trie:
    """A trie of token paths; the module describes its layout.

    Attributes:
        offsets: int32 [nodes + 1].
        child_tokens: int32 [nodes - 1].
        leaf_advertiser: int32 [nodes].
        leaf_nodes: int32 [paths].
        leaf_offsets: int32 [advertisers + 1].
    """

    offsets: Int32Array
    child_tokens: Int32Array
    leaf_advertiser: Int32Array
    leaf_nodes: Int32Array
    leaf_offsets: Int32Array

    @classmethod
    def build(cls, paths: Iterable[Sequence[int]], advertisers: npt.ArrayLike) -> Trie:
        """Build from token paths, in time and memory proportional to their total length.

        Args:
            paths: Token ids of each name, terminator included; no path begins another.
            advertisers: The advertiser row of each path; rows count from 0 without a gap.
        """
        flat, starts, lengths = _flatten(paths)
        rows = np.asarray(advertisers, dtype=np.int32)
        order = np.arange(len(lengths))  # paths sorted by their tokens up to the current depth
        node = np.zeros(len(lengths), dtype=np.int64)  # the node of each path, in that order
        going = np.arange(len(lengths))  # positions of the paths that go deeper
        offsets, child_tokens, leaf_advertiser = [np.zeros(1, np.int64)], [], [np.array([-1])]
        nodes_before, parents_before = 1, 0
        for depth in range(int(lengths.max(initial=0))):
            above, tokens = node[going], flat[starts[order[going]] + depth]
            # Nodes rise along the order, so paths are sorted within their node only.
            by_token = np.lexsort((tokens, above))
            order[going], tokens = order[going[by_token]], tokens[by_token]
            is_new = np.ones(len(going), dtype=np.bool_)
            is_new[1:] = (tokens[1:] != tokens[:-1]) | (above[1:] != above[:-1])
            parents = above[is_new]
            node[going] = nodes_before - 1 + np.cumsum(is_new)
            counts = np.bincount(parents - parents_before, minlength=nodes_before - parents_before)
            offsets.append(offsets[-1][-1] + np.cumsum(counts))
            child_tokens.append(tokens[is_new])
            is_leaf = lengths[order[going]] == depth + 1
            leaf_advertiser.append(np.where(is_leaf, rows[order[going]], -1)[is_new])
            going = going[~is_leaf]
            parents_before, nodes_before = nodes_before, nodes_before + int(is_new.sum())
        offsets.append(np.full(nodes_before - parents_before, offsets[-1][-1]))
        by_row = np.argsort(rows[order], kind="stable")
        leaf_counts = np.bincount(rows)
        arrays = {
            "offsets": np.concatenate(offsets),
            "child_tokens": np.concatenate(child_tokens),
            "leaf_advertiser": np.concatenate(leaf_advertiser),
            "leaf_nodes": node[by_row],
            "leaf_offsets": np.concatenate([[0], np.cumsum(leaf_counts)]),
        }
        return cls(**{name: array.astype(np.int32) for name, array in arrays.items()})

    @cached_property
    def most_paths(self) -> int:
        """The most names that one advertiser has."""
        return int(np.diff(self.leaf_offsets).max())

    @cached_property
    def first_nodes(self) -> Int64Array:
        """The root's children: int64 [c]."""
        return np.arange(1, int(self.offsets[1]) + 1)

    @cached_property
    def first_tokens(self) -> FirstTokens:
        """The tokens of the first two levels."""
        count = int(self.offsets[1])
        offsets = self.offsets[1 : count + 2]
        return FirstTokens(
            token_ids=self.child_tokens[:count],
            offsets=offsets - offsets[0],
            next_ids=self.child_tokens[count : offsets[-1]],
        )

    @cached_property
    def has_names_of_one_token(self) -> bool:
        """Whether a child of the root ends a name."""
        return bool(self.are_leaves(self.first_nodes).any())

    @cached_property
    def terminator(self) -> int:
        """The token that ends every path."""
        return int(self.child_tokens[self.leaf_nodes[0] - 1])

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """The nodes of each depth below the root: the first, and the one after the last."""
        levels, first, stop = [], 1, int(self.offsets[1]) + 1
        while first < stop:
            levels.append((first, stop))
            first, stop = stop, int(self.offsets[stop]) + 1
        return levels

    @property
    def depth(self) -> int:
        """The tokens of the longest name, terminator included."""
        return len(self.levels)

    def children(self, node: int) -> tuple[Int32Array, Int32Array]:
        """Return the tokens and the nodes of a node's children: int32 [c] each."""
        start, stop = self.offsets[node], self.offsets[node + 1]
        return self.child_tokens[start:stop], np.arange(start + 1, stop + 1, dtype=np.int32)

    def are_leaves(self, nodes: Int64Array) -> npt.NDArray[np.bool_]:
        """Return which nodes end a name: those without children.

        `leaf_advertiser` gives the same, but is in other memory pages than the children's offsets.
        """
        is_leaf: npt.NDArray[np.bool_] = self.offsets[nodes] == self.offsets[nodes + 1]
        return is_leaf

    def parents(self, nodes: npt.ArrayLike) -> Int64Array:
        """Return the parent of each node; the root is no valid input."""
        # With another integer type, NumPy would convert the whole mapped array at each call.
        edges = np.asarray(nodes).astype(self.offsets.dtype) - 1
        return np.searchsorted(self.offsets, edges, side="right") - 1

    def ancestors(self, nodes: npt.ArrayLike) -> Int64Array:
        """Return the nodes from below the root down to each node.

        Returns:
            int64 [n, deepest (at least 1)], padded with 0 (the root) on the left.
        """
        levels = []
        current = np.asarray(nodes, dtype=np.int64)
        while current.any():
            levels.append(current)
            current = np.where(current > 0, self.parents(np.maximum(current, 1)), 0)
        return np.stack(levels[::-1] or [current], axis=1)

    def paths(self, nodes: npt.ArrayLike) -> tuple[Int32Array, Int32Array]:
        """Return the tokens that lead to each node.

        Returns:
            int32 [n, longest], padded with -1 on the right, and the lengths, int32 [n].
        """
        lineage = self.ancestors(nodes)
        lengths = (lineage > 0).sum(axis=1)
        tokens = np.full(lineage.shape, _NO_TOKEN, dtype=np.int32)
        used = np.arange(lineage.shape[1]) < lengths[:, None]
        tokens[used] = self.child_tokens[lineage[lineage > 0] - 1]
        return tokens, lengths.astype(np.int32)

    def leaves_of(self, rows: npt.ArrayLike) -> tuple[Int64Array, Int64Array]:
        """Return the leaves of advertisers.

        Args:
            rows: [n].

        Returns:
            int64 [paths] each: the leaves, and the position of each leaf's advertiser in ``rows``.
        """
        starts = self.leaf_offsets[np.asarray(rows)].astype(np.int64)
        counts = self.leaf_offsets[np.asarray(rows) + 1] - starts
        owners = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(owners)) + (starts - np.cumsum(counts) + counts)[owners]
        return self.leaf_nodes[places].astype(np.int64), owners

    def find(self, tokens: Int32Array, lengths: npt.NDArray[Any]) -> Int64Array:
        """Return the node that each token path leads to, -1 where it leaves the trie.

        Args:
            tokens: [n, longest]; values beyond a path's length are ignored.
            lengths: [n].
        """
        nodes = np.zeros(len(lengths), dtype=np.int64)
        for depth in range(tokens.shape[1]):
            going = np.flatnonzero((lengths > depth) & (nodes >= 0))
            nodes[going] = self._step(nodes[going], tokens[going, depth])
        return nodes

    def covered(self, leaves: npt.ArrayLike) -> Int64Array:
        """Return the nodes that have no leaf outside ``leaves``, rising, the leaves included."""
        covered = np.unique(np.asarray(leaves, dtype=np.int64))
        while len(covered):
            parents, counts = np.unique(self.parents(covered), return_counts=True)
            whole = parents[counts == self.offsets[parents + 1] - self.offsets[parents]]
            grown = np.union1d(covered, whole[whole > 0])
            if len(grown) == len(covered):
                break
            covered = grown
        return covered

    def _step(self, nodes: Int64Array, tokens: Int32Array) -> Int64Array:
        """Return the child of each node by its token, -1 where there is none."""
        low, stop = self.offsets[nodes].astype(np.int64), self.offsets[nodes + 1].astype(np.int64)
        high = stop
        last = max(len(self.child_tokens) - 1, 0)
        for _ in range(int((stop - low).max(initial=0)).bit_length()):  # bisection, all at once
            middle = (low + high) // 2
            is_below = (middle < high) & (self.child_tokens[np.minimum(middle, last)] < tokens)
            low, high = np.where(is_below, middle + 1, low), np.where(is_below, high, middle)
        found = (low < stop) & (self.child_tokens[np.minimum(low, last)] == tokens)
        return np.where(found, low + 1, -1)

    def lookup(self, path: Sequence[int]) -> int:
        """Return the advertiser row that a whole path spells, or -1."""
        tokens = np.asarray([path], dtype=np.int32).reshape(1, len(path))
        node = int(self.find(tokens, np.array([len(path)], dtype=np.int32))[0])
        return int(self.leaf_advertiser[node]) if node >= 0 else -1

    def save(self, directory: Path) -> None:
        """Write each array as one ``.npy`` file into an existing directory."""
        save_arrays(directory, {item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, directory: Path) -> Trie:
        """Map the arrays of ``directory`` into memory.

        Raises:
            ArtefactError: A file is missing, or the arrays do not fit each other.
        """
        trie = cls(**load_arrays(directory, [item.name for item in fields(cls)], "a trie"))
        nodes, paths = len(trie.leaf_advertiser), len(trie.leaf_nodes)
        found = (
            len(trie.offsets),
            len(trie.child_tokens),
            *trie.offsets[-1:],
            *trie.leaf_offsets[-1:],
        )
        if found != (nodes + 1, nodes - 1, nodes - 1, paths):
            raise ArtefactError(
                f"{directory}: the trie's arrays do not fit each other: {nodes} nodes and {paths} "
                f"names, but sizes and ends {tuple(map(int, found))}"
            )
        return trie


def _flatten(paths: Iterable[Sequence[int]]) -> tuple[Int32Array, Int64Array, Int64Array]:
    """Return the tokens of all paths, int32, and each path's start and length."""
    listed = paths if isinstance(paths, Sequence) else list(paths)
    lengths = np.fromiter(map(len, listed), dtype=np.int64, count=len(listed))
    flat = np.fromiter(chain.from_iterable(listed), dtype=np.int32, count=int(lengths.sum()))
    return flat, np.cumsum(lengths) - lengths, lengths


def as_matrix(paths: Iterable[Sequence[int]]) -> tuple[Int32Array, Int64Array]:
    """Return paths as int32 [n, longest], padded with -1 on the right, and their lengths."""
    flat, _, lengths = _flatten(paths)
    tokens = np.full((len(lengths), int(lengths.max(initial=0))), _NO_TOKEN, dtype=np.int32)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = flat
    return tokens, lengths
