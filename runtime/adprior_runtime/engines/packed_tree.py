"""Packed tree attention: all live prefixes of a user are positions of one sequence.

A mask lets each position see only the prompt and its own ancestors
(`adprior_runtime.engines.tree_mask`). Its position id is the prompt's length plus its depth. So the
prompt's keys and values are written once and never re-ordered.

An engine of this kind brings its forward passes (`Passes`); the tree, the limits and the tokens
that all prompts begin with are the same for all of them and are kept here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import PASS_TOKENS, Engine, FirstStep, LogProbs
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.engines.tree_packing import pack_nodes
from adprior_runtime.engines.tree_pass import PassShape, TreePass
from adprior_runtime.errors import InvalidRequestError

_Int64Array = npt.NDArray[np.int64]

PASS_CELLS: Final = 2 * 2**20
"""Limit on a pass's mask: tokens times positions. Each attention head computes as many numbers, 8
MiB in single precision."""

_ZERO: Final = np.zeros(1, dtype=np.int64)
"""A pass that asks for nothing asks for one log-probability that nobody reads."""


class Cache(Protocol):
    """One user's keys and values, for the prompt and for the tree below it."""

    def fork(self) -> Self:
        """Return a copy that grows independently."""
        ...


@dataclass(slots=True)
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

    @property
    def kind(self) -> Hashable:
        """A key: only passes with equal keys can be joined."""
        return None

    @property
    def tokens_ahead(self) -> int:
        """The number of tokens that the device extends by itself after the pass; 0 for none."""
        return 0


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
        cache: Keys and values of prompt and tree, a `Cache`.
        positions: int64 [prompt + nodes], the position of each token.
        parents: int64 [nodes], the node that each node continues.
    """

    cache: Any
    positions: _Int64Array
    parents: _Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


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
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,  # noqa: ARG002  for engines that work ahead
    ) -> tuple[UserTree, RankedTokens]:
        """See `Engine.prefill`.

        Raises:
            InvalidRequestError: A token is not in the vocabulary, or there are too many tokens.
        """
        wanted = np.ascontiguousarray(next_tokens, dtype=np.int64)
        user, tree_pass = self._begin(prompt_ids, wanted if len(wanted) else _ZERO)
        self._check_known(wanted)
        log_probs = self._passes.run(UserPass(user.cache, tree_pass))
        return user, RankedTokens.of(log_probs[: len(wanted)])

    def _begin(
        self, prompt_ids: Sequence[int], next_tokens: _Int64Array
    ) -> tuple[UserTree, TreePass]:
        """Return a new user, and the pass that reads the prompt.

        Args:
            prompt_ids: The prompt's tokens.
            next_tokens: int64 [pairs], the tokens to ask for after the last of them.
        """
        length, head = len(prompt_ids), len(self._head_ids)
        if not 0 < length < self.max_positions:
            raise InvalidRequestError(
                f"input_ids: {length} tokens, the model takes 1 to {self.max_positions - 1}"
            )
        tokens = np.asarray(prompt_ids, dtype=np.int64)
        least, largest = tokens.min(), tokens.max()
        if least < 0 or largest >= self.vocabulary:
            raise InvalidRequestError(
                f"input_ids: found {least} to {largest}, the model knows 0 to {self.vocabulary - 1}"
            )
        if length <= head or list(prompt_ids[:head]) != self._head_ids:
            head = 0
        cache = self._head.fork() if head else self._passes.empty_cache()
        tree_pass = TreePass.of(
            token_ids=tokens[head:],
            positions=np.arange(length),
            visible=np.arange(head, length) + 1,
            seen=np.arange(head, length)[:, None],
            wanted=np.array([length - head - 1]),
            pair_rows=np.zeros(len(next_tokens), dtype=np.int64),
            pair_tokens=next_tokens,
        )
        return UserTree(cache, tree_pass.positions), tree_pass

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
        tokens = np.ascontiguousarray(token_ids, dtype=np.int64)
        if len(tokens) == 0:  # a model takes no pass without tokens
            return np.zeros(0, dtype=np.float32)
        wanted = np.ascontiguousarray(next_tokens, dtype=np.int64)
        asks = len(wanted) > 0
        pair_tokens = wanted if asks else _ZERO
        past, new, pairs = len(state.positions), len(tokens), len(pair_tokens)
        tree = np.empty(len(state.parents) + new, dtype=np.int64)
        positions = np.empty(past + new, dtype=np.int64)
        numbers, seen, rows_wanted, unknown = pack_nodes(
            tree,
            positions,
            state.parents,
            state.positions,
            tokens,
            np.ascontiguousarray(parents, dtype=np.int64),
            np.ascontiguousarray(rows, dtype=np.int64) if asks else _ZERO,
            pair_tokens,
            self.vocabulary,
        )
        if unknown:
            raise self._unknown(wanted)
        tree_pass = TreePass(PassShape(past, new, seen, rows_wanted, pairs), positions, numbers)
        log_probs = self._passes.run(UserPass(state.cache, tree_pass, keep))
        if keep:
            state.parents, state.positions = tree, positions
        return log_probs[: len(wanted)]

    def most_tokens(self, state: UserTree) -> int:
        """See `Engine.most_tokens`."""
        positions = len(state.positions) + PASS_TOKENS
        return max(min(PASS_TOKENS, PASS_CELLS // positions), 1)

    def _check_known(self, next_tokens: _Int64Array) -> None:
        """Raise ValueError if a token is not in the vocabulary."""
        if len(next_tokens) and not 0 <= next_tokens.min() <= next_tokens.max() < self.vocabulary:
            raise self._unknown(next_tokens)

    def _unknown(self, next_tokens: _Int64Array) -> ValueError:
        return ValueError(
            f"next_tokens: found {next_tokens.min()} to {next_tokens.max()}, "
            f"the model knows 0 to {self.vocabulary - 1}"
        )
