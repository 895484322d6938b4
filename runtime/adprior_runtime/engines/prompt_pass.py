"""A pass that reads a prompt and takes the first step of its search, and the pass's result.

`adprior_runtime.engines.working_ahead` asks for it; a device runs it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.compiled import Int64Array
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import power_of_two
from adprior_runtime.engines.packed_tree import Passes, UserPass
from adprior_runtime.engines.ranked_tokens import MOST_RANKED, RankedTokens


@dataclass(slots=True, kw_only=True)
class PromptPass(UserPass):
    """A pass that reads a prompt; the device asks it for the first tokens of names itself.

    Attributes:
        first: The tokens that are asked for, and those that may follow each.
        width: How many of the most probable ones to extend; 0 extends none.
    """

    first: FirstTokens
    width: int

    @property
    def kind(self) -> Hashable:
        """See `UserPass.kind`: a joined pass has one trie and about one width."""
        return self.first, self.tokens_ahead

    @property
    def tokens_ahead(self) -> int:
        """See `UserPass.tokens_ahead`."""
        return power_of_two(self.width)


class PromptAnswer(NamedTuple):
    """The result of a `PromptPass` for one user.

    Attributes:
        first: As in the pass.
        ranked: The first tokens.
        extended: int64 [w], the places of the tokens that have been extended among the first ones,
            most probable first, and of equal ones in their order; ``width`` or more.
        log_probs: float32 [c or more], of the c tokens that may follow each, in the same order; the
            rest has no meaning.
    """

    first: FirstTokens
    ranked: RankedTokens
    extended: Int64Array
    log_probs: LogProbs


class StepSizes(NamedTuple):
    """The sizes of a first step, which the host knows before the device has chosen.

    Attributes:
        held: How many of the most probable first tokens come back.
        width: How many of them are extended, at most ``held``.
        most_next: At least the number of tokens that may follow those.
    """

    held: int
    width: int
    most_next: int

    @classmethod
    def of(cls, first: FirstTokens, width: int) -> Self:
        """Return the sizes for ``width`` tokens, or as many as there are.

        Twice as many come back: the rounds of an exact search may need as many again.
        """
        asked = len(first.token_ids)
        width = min(width, asked)
        return cls(min(max(MOST_RANKED, 2 * width), asked), width, first.most_next(width))

    @property
    def numbers(self) -> int:
        """The count of 4-byte numbers that the device returns for each user."""
        held_and_sum = 2 * self.held + 2  # places and log-probabilities; the sum has eight bytes
        return held_and_sum + self.width + self.most_next


class PromptPasses(Passes, Protocol):
    """Passes of a device that can take the first step by itself."""

    def read_prompt(self, part: PromptPass) -> PromptAnswer:
        """Run one forward pass for one user."""
        ...
