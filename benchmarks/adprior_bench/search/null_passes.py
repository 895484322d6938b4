"""Forward passes that cost nothing, to measure what the host does between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from adprior_runtime.compiled import Int64Array
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import PassSizes, join_passes
from adprior_runtime.engines.packed_tree import UserPass
from adprior_runtime.engines.prompt_pass import PromptAnswer, PromptPass, StepSizes
from adprior_runtime.engines.ranked_tokens import RankedTokens

_WEIGHTS: Final = 2**16
_ON_NAMES: Final = 0.86
"""Share of a node's probability that its children in the trie get, as in the shipped model."""
_WORD: Final = 4
"""Bytes of a number that travels."""


@dataclass(slots=True)
class NullCache:
    """One user: a number that changes all weights."""

    user: int

    def fork(self) -> Self:
        """Return the same user again."""
        return type(self)(self.user)

    def keep(self, new: int) -> None:
        """See `adprior_runtime.engines.working_ahead.KeepingCache`; there is nothing to keep."""


class NullPasses:
    """Forward passes without a model.

    The tokens that are asked for after a row share 0.86 of its probability, by Zipf's law with the
    exponent 1.5 in an order that depends on user, position and token.

    Attributes:
        user: The number of the next user; set it back to get the same users again.
        seconds: Processor time of all passes, without that of joining them.
        join_seconds: Processor time of joining users' passes.
        passes: Number of passes, each user's counted.
        fetches: How often all first tokens had to be fetched from the device.
        sent_bytes: What the torch engine would send to the device for them, without padding.
        returned_bytes: What the device would return.
    """

    def __init__(self) -> None:
        ranks = np.random.default_rng(3).permutation(_WEIGHTS) + 1.0
        self._weights = ranks**-1.5
        self.user = 0
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        self.seconds = self.join_seconds = 0.0
        self.passes = self.fetches = 0
        self.sent_bytes = self.returned_bytes = 0

    def empty_cache(self) -> NullCache:
        """See `Passes.empty_cache`; each call begins another user."""
        self.user += 1
        return NullCache(self.user)

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        """See `JoinablePasses.start`; joins the passes as the torch engine does for a GPU."""
        begin = time.thread_time()
        passes = [part.tree_pass for part in parts]
        sizes = PassSizes.of(passes).rounded_up()
        join_passes(passes, [0] * len(parts), sizes, 0)
        joined = time.thread_time()
        answers = [self._answer(part) for part in parts]
        self.passes += len(parts)
        for part in parts:
            self.sent_bytes += _WORD * PassSizes.of([part.tree_pass]).numbers
            self.returned_bytes += _WORD * returned_numbers(part)
        self.join_seconds += joined - begin
        self.seconds += time.thread_time() - joined
        return lambda: answers

    def _answer(self, part: UserPass) -> LogProbs | PromptAnswer:
        tree_pass, user = part.tree_pass, part.cache.user
        positions = tree_pass.new_positions[tree_pass.wanted]
        if isinstance(part, PromptPass):
            return self._first_step(part, int(positions[0]))
        return self._log_probs(user, positions, tree_pass.pair_rows, tree_pass.pair_tokens)

    def _first_step(self, part: PromptPass, last: int) -> PromptAnswer:
        """Return what a device would that chooses the most probable tokens and extends them."""
        first, user = part.first, part.cache.user
        sizes = StepSizes.of(first, part.width)
        asked = first.token_ids.astype(np.int64)
        all_of_them = self._log_probs(user, np.array([last]), np.zeros_like(asked), asked)
        extended = np.argsort(-all_of_them, kind="stable")[: sizes.width]
        begins, stops = first.offsets[extended], first.offsets[extended + 1]
        rows = np.repeat(np.arange(sizes.width), stops - begins)
        after = [first.next_ids[begin:stop] for begin, stop in zip(begins, stops, strict=True)]
        tokens = np.concatenate([*after, np.zeros(0)]).astype(np.int64)
        log_probs = self._log_probs(user, np.full(sizes.width, last + 1), rows, tokens)

        def read_all() -> LogProbs:
            self.fetches += 1
            self.returned_bytes += _WORD * len(all_of_them)
            return all_of_them

        ranked = RankedTokens.of(all_of_them)
        if len(ranked.places) < ranked.asked:  # else all are there
            ranked = replace(ranked, read_all=read_all)
        return PromptAnswer(first, ranked, extended, log_probs)

    def _log_probs(
        self, user: int, positions: Int64Array, rows: Int64Array, tokens: Int64Array
    ) -> LogProbs:
        """Return the log-probability of each token after its row.

        Args:
            user: The user's number.
            positions: int64 [n], the rows'.
            rows: int64 [m].
            tokens: int64 [m].
        """
        places = tokens * 40_503 + positions[rows] * 9_973 + user * 7_919
        weights = self._weights[places % _WEIGHTS]
        log_probs: LogProbs = np.log(
            _ON_NAMES * weights / np.bincount(rows, weights=weights)[rows]
        ).astype(np.float32)
        return log_probs


def returned_numbers(part: UserPass) -> int:
    """Return how many numbers of four bytes a pass returns to one user."""
    if isinstance(part, PromptPass):
        return StepSizes.of(part.first, part.width).numbers
    return len(part.tree_pass.pair_tokens)
