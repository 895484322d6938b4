"""The interface between the search and an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.engines.ranked_tokens import RankedTokens

LogProbs = npt.NDArray[np.float32]
State = TypeVar("State")

ROOT = -1
"""The node that stands for the prompt's end."""

PASS_TOKENS: Final = 512
"""Most tokens of a pass. A longer pass costs more than two short ones (attention, output rows)."""

VOCABULARY_CHUNK: Final = 32_768
"""Most tokens of the vocabulary whose logits are held at once, for each wanted position."""


class FirstStep(NamedTuple):
    """The first step of a search: it extends the most probable first tokens.

    Attributes:
        tokens: The first tokens, and those that may follow each.
        width: How many the search will extend.
    """

    tokens: FirstTokens
    width: int


class Engine(Protocol[State]):
    """A causal language model that grows a tree of continuations of one prompt.

    The tree's nodes are numbered from 0 in the order they are extended; `ROOT` is the prompt's end.

    Attributes:
        max_positions: Tokens of the longest sequence that it takes. An engine without a limit keeps
            the default.
    """

    max_positions: int = 2**31

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,
    ) -> tuple[State, RankedTokens]:
        """Read a prompt.

        Args:
            prompt_ids: The prompt's tokens.
            next_tokens: [m], the tokens whose log-probabilities after the prompt are wanted.
            first_step: What will be asked for next, if that is known; its tokens are
                ``next_tokens``. An engine may begin with it, or ignore it.

        Returns:
            The state to extend, and the log-probabilities under the softmax over the whole
            vocabulary.
        """
        ...

    def extend(
        self,
        state: State,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """Append tokens to nodes, all in one forward pass.

        Args:
            state: From `prefill`; updated in place if ``keep``.
            token_ids: [n], one for each new node.
            parents: [n], the node that each continues: `ROOT`, a node of an earlier call, or an
                earlier node of this call.
            rows: [m], rising, positions in ``token_ids``.
            next_tokens: [m], tokens: the log-probability of each after its row is wanted.
            keep: Whether later calls may continue the new nodes. If not, the state does not change,
                and later nodes get the same numbers.

        Returns:
            Log-probabilities under the softmax over the whole vocabulary: float32 [m].
        """
        ...

    def most_tokens(self, state: State) -> int:  # noqa: ARG002
        """Return how many tokens the next pass may have, 1 or more; this limits its memory."""
        return PASS_TOKENS
