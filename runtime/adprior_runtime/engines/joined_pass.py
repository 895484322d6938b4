"""One forward pass for many users: their tree passes side by side, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.packed_tree import TreePass

_Int32Array = npt.NDArray[np.int32]


class JoinedPass(NamedTuple):
    """What the model gets, all int32. A padding token sees only itself, and nobody reads it.

    Attributes:
        token_ids: [users, new].
        positions: [users, new], position ids.
        visible: [users, new], how many tokens of the sequence's begin each new one sees.
        seen: [users, new, any], further places of the sequence that it sees, itself included.
        wanted: [wanted], rows of the pass, counted through all users: user times new plus token.
        pair_rows: [pairs], indices into ``wanted``.
        pair_tokens: [pairs].
    """

    token_ids: _Int32Array
    positions: _Int32Array
    visible: _Int32Array
    seen: _Int32Array
    wanted: _Int32Array
    pair_rows: _Int32Array
    pair_tokens: _Int32Array


def join_passes(passes: Sequence[TreePass]) -> JoinedPass:
    """Join users' passes, one or more."""
    users, new = len(passes), max(len(each.token_ids) for each in passes)
    token_ids, positions, visible = np.zeros((3, users, new), dtype=np.int32)
    past = np.array([len(each.positions) - len(each.token_ids) for each in passes])
    seen = np.empty((users, new, max(each.seen.shape[1] for each in passes)), dtype=np.int32)
    seen[:] = (past[:, None] + np.arange(new))[:, :, None]
    wanted, pair_rows, rows = [], [], 0
    for user, each in enumerate(passes):
        count = len(each.token_ids)
        token_ids[user, :count] = each.token_ids
        positions[user, :count] = each.new_positions
        visible[user, :count] = each.visible
        seen[user, :count, : each.seen.shape[1]] = each.seen
        wanted.append(each.wanted + user * new)
        pair_rows.append(each.pair_rows + rows)
        rows += len(each.wanted)
    return JoinedPass(
        token_ids,
        positions,
        visible,
        seen,
        _joined(wanted),
        _joined(pair_rows),
        _joined([each.pair_tokens for each in passes]),
    )


def _joined(arrays: Sequence[npt.NDArray[np.int64]]) -> _Int32Array:
    return np.concatenate(arrays).astype(np.int32)
