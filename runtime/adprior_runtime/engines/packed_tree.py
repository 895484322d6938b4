"""Packed tree attention: all live prefixes of a user are positions of one sequence.

A mask lets each position see only the prompt and its own ancestors
(`adprior_runtime.engines.tree_mask`). Its position id is the prompt's length plus its depth. So the
prompt's keys and values are written once and never re-ordered.

An engine of this kind brings its forward passes (`Passes`); the tree, the limits and the tokens
that all prompts begin with are the same for all of them and are kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import PASS_TOKENS, Engine, LogProbs
from adprior_runtime.engines.tree_mask import additive_mask, lineages
from adprior_runtime.errors import InvalidRequestError

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]

PASS_CELLS: Final = 2 * 2**20
"""Limit on a pass's mask: tokens times positions. Each attention head computes as many numbers, 8
MiB in single precision."""


class Cache(Protocol):
    """One user's keys and values, for the prompt and for the tree below it."""

    def fork(self) -> Self:
        """Return a copy that grows independently."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePass:
    """The tokens that a forward pass adds, and what it is asked for.

    Attributes:
        token_ids: int64 [new].
        positions: int64 [past + new], of all tokens that the new ones may see.
        visible: int64 [new], how many tokens of the sequence's begin each new one sees.
        seen: int64 [new, any], further tokens that it sees, itself included.
        wanted: int64 [wanted], one or more indices of new tokens, distinct and rising.
        pair_rows: int64 [pairs], indices into ``wanted``; one or more.
        pair_tokens: int64 [pairs]: the log-probability of each after its row is wanted.
    """

    token_ids: _Int64Array
    positions: _Int64Array
    visible: _Int64Array
    seen: _Int64Array
    wanted: _Int64Array
    pair_rows: _Int64Array
    pair_tokens: _Int64Array

    @property
    def new_positions(self) -> _Int64Array:
        """The positions of the new tokens: int64 [new]."""
        return self.positions[len(self.positions) - len(self.token_ids) :]

    def mask(self) -> _Float32Array:
        """Return what is added to the attention scores: float32 [new, past + new]."""
        return additive_mask(self.visible, self.seen, len(self.positions))


@dataclass(frozen=True, slots=True)
class UserPass:
    """A forward pass for one user.

    Attributes:
        cache: What `Passes.empty_cache` returned, or a copy of it; it grows if ``keep``.
        tree_pass: What the pass adds and asks for.
        keep: Whether to keep the new positions' keys and values.
    """

    cache: Any
    tree_pass: TreePass
    keep: bool = True


class Passes(Protocol):
    """Runs forward passes of a language model."""

    def empty_cache(self) -> Any:
        """Return a `Cache` of no position."""
        ...

    def run(self, part: UserPass) -> LogProbs:
        """Run one forward pass for one user.

        Returns:
            The log-probability of each pair: float32 [pairs].
        """
        ...


@dataclass(slots=True)
class UserTree:
    """One user's cache and tree.

    Attributes:
        prompt_length: Tokens of the prompt.
        cache: Keys and values of prompt and tree, a `Cache`.
        parents: int64 [nodes], the node that each node continues.
        depths: int64 [nodes], 0 for a child of the root.
    """

    prompt_length: int
    cache: Any
    parents: _Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    depths: _Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class PackedTreeEngine(Engine[UserTree]):
    """Grows users' trees with the forward passes of one language model.

    Args:
        passes: The language model's.
        vocabulary: Number of tokens that it knows.
        max_positions: Its longest sequence.
        head_ids: Tokens that all prompts begin with; the model reads them once, here.

    Attributes:
        vocabulary, max_positions: As the arguments.
    """

    def __init__(
        self, passes: Passes, *, vocabulary: int, max_positions: int, head_ids: Sequence[int] = ()
    ) -> None:
        self._passes = passes
        self.vocabulary, self.max_positions = vocabulary, max_positions
        self._head_ids: list[int] = []
        self._head: Cache = passes.empty_cache()
        if head_ids:
            head, _ = self.prefill(list(head_ids), [])
            self._head, self._head_ids = head.cache, list(head_ids)

    def prefill(
        self, prompt_ids: Sequence[int], next_tokens: npt.ArrayLike
    ) -> tuple[UserTree, LogProbs]:
        """See `Engine.prefill`.

        Raises:
            InvalidRequestError: A token is not in the vocabulary, or there are too many tokens.
        """
        length, head = len(prompt_ids), len(self._head_ids)
        if not 0 < length < self.max_positions:
            raise InvalidRequestError(
                f"input_ids: {length} tokens, the model takes 1 to {self.max_positions - 1}"
            )
        if min(prompt_ids) < 0 or max(prompt_ids) >= self.vocabulary:
            raise InvalidRequestError(
                f"input_ids: found {min(prompt_ids)} to {max(prompt_ids)}, "
                f"the model knows 0 to {self.vocabulary - 1}"
            )
        if length <= head or list(prompt_ids[:head]) != self._head_ids:
            head = 0
        user = UserTree(length, self._head.fork() if head else self._passes.empty_cache())
        wanted = np.asarray(next_tokens, dtype=np.int64)
        log_probs = self._run(
            user,
            np.asarray(prompt_ids[head:], dtype=np.int64),
            np.arange(length),
            np.arange(head, length) + 1,
            np.arange(head, length)[:, None],
            np.full(len(wanted), length - head - 1),
            wanted,
        )
        return user, log_probs

    def extend(
        self,
        state: UserTree,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """See `Engine.extend`."""
        tokens, above = np.asarray(token_ids, dtype=np.int64), np.asarray(parents, dtype=np.int64)
        if len(tokens) == 0:  # a model takes no pass without tokens
            return np.zeros(0, dtype=np.float32)
        tree = np.concatenate([state.parents, above])
        seen, new_depths = lineages(tree, len(tokens))
        depths = np.concatenate([state.depths, new_depths])
        log_probs = self._run(
            state,
            tokens,
            np.concatenate([np.arange(state.prompt_length), state.prompt_length + depths]),
            np.full(len(tokens), state.prompt_length),
            state.prompt_length + seen,
            np.asarray(rows, dtype=np.int64),
            np.asarray(next_tokens, dtype=np.int64),
            keep=keep,
        )
        if keep:
            state.parents, state.depths = tree, depths
        return log_probs

    def most_tokens(self, state: UserTree) -> int:
        """See `Engine.most_tokens`."""
        positions = state.prompt_length + len(state.depths) + PASS_TOKENS
        return max(min(PASS_TOKENS, PASS_CELLS // positions), 1)

    def _run(
        self,
        user: UserTree,
        token_ids: _Int64Array,
        positions: _Int64Array,
        visible: _Int64Array,
        seen: _Int64Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """Run one forward pass; return the log-probability of each next token after its row.

        Args:
            user: Its cache grows if ``keep``.
            token_ids: int64 [new].
            positions: int64 [past + new].
            visible: As in `TreePass`.
            seen: Likewise.
            rows: int64 [pairs], positions in ``token_ids``.
            next_tokens: int64 [pairs].
            keep: Whether to keep the new positions' keys and values.

        Raises:
            ValueError: A next token is not in the vocabulary.
        """
        if len(next_tokens) and not 0 <= next_tokens.min() <= next_tokens.max() < self.vocabulary:
            raise ValueError(
                f"next_tokens: found {next_tokens.min()} to {next_tokens.max()}, "
                f"the model knows 0 to {self.vocabulary - 1}"
            )
        # A pass that asks for nothing asks for one log-probability that nobody reads.
        asked = rows if len(rows) else np.zeros(1, dtype=np.int64)
        is_wanted = np.zeros(len(token_ids), dtype=np.bool_)
        is_wanted[asked] = True
        places = (is_wanted.cumsum() - 1)[asked]
        tree_pass = TreePass(
            token_ids=token_ids,
            positions=positions,
            visible=visible,
            seen=seen,
            wanted=is_wanted.nonzero()[0],
            pair_rows=places,
            pair_tokens=next_tokens if len(rows) else asked,
        )
        return self._passes.run(UserPass(user.cache, tree_pass, keep))[: len(rows)]
