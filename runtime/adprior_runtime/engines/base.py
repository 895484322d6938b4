"""What the search asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Engine", "LogProbs", "State"]

LogProbs = npt.NDArray[np.float32]
State = TypeVar("State")


class Engine(Protocol[State]):
    """A causal language model that grows a tree of continuations of one prompt.

    The tree's nodes are numbered in the order they are extended; `ROOT` is the prompt's end.
    """

    ROOT: int = -1

    def prefill(self, prompt_ids: Sequence[int]) -> tuple[State, LogProbs]:
        """Read a prompt.

        Returns:
            The state to extend, and the next token's log-probabilities: float32 [vocabulary].
        """
        ...

    def extend(
        self, state: State, token_ids: Sequence[int], parents: Sequence[int]
    ) -> tuple[Sequence[int], LogProbs]:
        """Append tokens to nodes, all in one forward pass.

        Args:
            state: From `prefill`; updated in place.
            token_ids: One token for each new node.
            parents: The node that each continues, or `ROOT`.

        Returns:
            The new nodes' numbers, and the next token's log-probabilities after each:
            float32 [nodes, vocabulary].
        """
        ...
