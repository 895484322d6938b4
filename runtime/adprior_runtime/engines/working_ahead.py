"""A packed-tree engine that takes a search's first step before the search asks for it.

A search begins by extending the most probable tokens after the prompt. A device that has just
computed their probabilities can choose them and extend them at once, without waiting for the host.
Their places are those that the host would give them: the prompt's length and the rank. So the pass
that reads a prompt returns the most probable tokens, the sum of the others, and what may follow the
first few::

    host    prompt ─▶                         ▶ chooses ─▶ is answered ─▶ next pass
    device           reads, chooses, extends ─┘

The search decides all the same. If it extends these tokens, in this order, it is answered from what
has arrived. If it extends others, or asks for anything else first, an ordinary pass overwrites
those places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.compiled import Int32Array, Int64Array, compiled
from adprior_runtime.engines.base import ROOT, FirstStep, LogProbs
from adprior_runtime.engines.joined_pass import power_of_two
from adprior_runtime.engines.packed_tree import Cache, PackedTreeEngine, UserTree
from adprior_runtime.engines.prompt_pass import PromptAnswer, PromptPass, PromptPasses
from adprior_runtime.engines.ranked_tokens import RankedTokens

MOST_NEXT: Final = 8192
"""Most log-probabilities that come back for one user's first step, 32 KiB. Where more tokens could
follow, the search asks for the step itself: it seldom has the most children that are possible."""

_NO_TOKENS: Final = np.zeros(0, dtype=np.int64)


class KeepingCache(Cache, Protocol):
    """A cache in which a pass writes behind the kept positions."""

    def keep(self, new: int) -> None:
        """Keep the ``new`` positions that were written behind the kept ones."""
        ...


@dataclass(slots=True)
class AheadTree(UserTree):
    """A user's tree whose first step may have been taken.

    Attributes:
        cache: As in `UserTree`.
        answer: Has the step, until the search asks for the first time.
    """

    cache: KeepingCache
    answer: PromptAnswer | None = None


class WorkingAheadEngine(PackedTreeEngine):
    """Grows users' trees as `PackedTreeEngine` does, and takes the first step ahead.

    Args:
        passes: The language model's. Their caches are a `KeepingCache`.
        vocabulary: As for `PackedTreeEngine`; the others likewise.
        max_positions: Likewise.
        head_ids: Likewise.
        works_ahead: False takes no step ahead.
    """

    def __init__(
        self,
        passes: PromptPasses,
        *,
        vocabulary: int,
        max_positions: int,
        head_ids: Sequence[int] = (),
        works_ahead: bool = True,
    ) -> None:
        self._prompt_passes, self._works_ahead = passes, works_ahead
        super().__init__(
            passes, vocabulary=vocabulary, max_positions=max_positions, head_ids=head_ids
        )

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,
    ) -> tuple[UserTree, RankedTokens]:
        """See `Engine.prefill`."""
        if first_step is None or not self._works_ahead or not len(first_step.tokens.token_ids):
            return super().prefill(prompt_ids, next_tokens)
        first = first_step.tokens
        self._check_known(np.array(first.range))
        user, tree_pass = self._begin(prompt_ids, _NO_TOKENS)
        part = PromptPass(user.cache, tree_pass, first=first, width=self._width(user, first_step))
        answer = self._prompt_passes.read_prompt(part)
        ranked = replace(answer.ranked, extended=len(answer.extended))
        return AheadTree(user.cache, user.positions, answer=answer), ranked

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
        asked = _Asked.of(token_ids, parents, rows, next_tokens)
        if isinstance(state, AheadTree):
            # Any pass, kept or not, writes to the same places.
            answer, state.answer = state.answer, None
            tokens, pairs = _answered(answer, asked) if answer is not None and keep else (0, 0)
            if answer is not None and tokens:
                found = answer.log_probs[:pairs]
                _keep(state, tokens)
                if tokens == len(asked.token_ids):
                    return found
                return np.concatenate([found, super().extend(state, *asked.after(tokens, pairs))])
        return super().extend(state, *asked, keep=keep)

    def _width(self, user: UserTree, step: FirstStep) -> int:
        """Return how many tokens to extend ahead: all of the search's next pass, or none."""
        is_small = 0 < step.tokens.most_next(power_of_two(step.width)) <= MOST_NEXT
        return step.width if is_small and step.width <= self.most_tokens(user) else 0


class _Asked(NamedTuple):
    """What `Engine.extend` is asked for."""

    token_ids: Int64Array
    parents: Int64Array
    rows: Int64Array
    next_tokens: Int64Array

    @classmethod
    def of(cls, *given: npt.ArrayLike) -> Self:
        return cls(*(np.ascontiguousarray(each, dtype=np.int64) for each in given))

    def after(self, tokens: int, pairs: int) -> Self:
        """Return the rest, without the first tokens and pairs."""
        return type(self)(
            self.token_ids[tokens:],
            self.parents[tokens:],
            self.rows[pairs:] - tokens,
            self.next_tokens[pairs:],
        )


def _keep(state: AheadTree, tokens: int) -> None:
    """Keep what the step has written for the root's first children."""
    state.parents = np.full(tokens, ROOT)
    state.positions = np.append(state.positions, np.full(tokens, len(state.positions)))
    state.cache.keep(tokens)


def _answered(answer: PromptAnswer, asked: _Asked) -> tuple[int, int]:
    """Return how many of the first tokens and pairs of a pass the step has answered."""
    first = answer.first
    return _count_answered(first.token_ids, first.offsets, first.next_ids, answer.extended, *asked)


@compiled
def _count_answered(
    first_ids: Int32Array,
    offsets: Int32Array,
    next_ids: Int32Array,
    extended: Int64Array,
    token_ids: Int64Array,
    parents: Int64Array,
    rows: Int64Array,
    next_tokens: Int64Array,
) -> tuple[int, int]:
    """Return how many of the first tokens and pairs of a pass the step has answered.

    Both are 0 unless the pass begins with the extended tokens, or with the first of them, in their
    order, and asks for all that may follow each.

    Args:
        first_ids: As in `FirstTokens`, ``token_ids``.
        offsets: Likewise.
        next_ids: Likewise.
        extended: int64 [w], as in `PromptAnswer`.
        token_ids: int64 [n], as `Engine.extend` takes them; the next three likewise.
        parents: int64 [n].
        rows: int64 [m].
        next_tokens: int64 [m].
    """
    tokens, pairs = 0, 0
    while tokens < len(parents) and parents[tokens] == -1:  # the root
        if tokens == len(extended) or first_ids[extended[tokens]] != token_ids[tokens]:
            return 0, 0
        for child in range(offsets[extended[tokens]], offsets[extended[tokens] + 1]):
            if pairs == len(rows) or rows[pairs] != tokens or next_tokens[pairs] != next_ids[child]:
                return 0, 0
            pairs += 1
        tokens += 1
    if pairs < len(rows) and rows[pairs] < tokens:
        return 0, 0
    return tokens, pairs
