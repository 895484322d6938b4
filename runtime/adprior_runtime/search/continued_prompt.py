"""Further tokens after a prompt that an engine has read, so that two searches share one prefill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT, Engine, FirstStep, LogProbs
from adprior_runtime.engines.ranked_tokens import RankedTokens


class ContinuedPrompt(Engine[Any]):
    """An engine whose prompt is another engine's prompt and the further tokens of `prefill`.

    The further tokens and the tree below them are nodes of the other engine's tree. Here the nodes
    below the further tokens are numbered from 0 again.

    Args:
        engine: The other engine.
        state: Its state. Its other trees cannot grow any more, nor try out paths: their new nodes
            would have other numbers.
        nodes: The number of nodes in the state.
    """

    def __init__(self, engine: Engine[Any], state: Any, nodes: int) -> None:
        self._engine, self._state = engine, state
        self._first = nodes

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,  # noqa: ARG002  this is no prompt's end
    ) -> tuple[Any, RankedTokens]:
        """Read the further tokens, one or more; see `Engine.prefill`."""
        last = self._first + len(prompt_ids)
        chain = [ROOT, *range(self._first, last - 1)]
        rows = np.full(np.shape(next_tokens), len(prompt_ids) - 1)
        log_probs = self._engine.extend(self._state, prompt_ids, chain, rows, next_tokens)
        self._first = last
        return self._state, RankedTokens.of(log_probs)

    def extend(
        self,
        state: Any,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """See `Engine.extend`."""
        # ROOT is -1: it becomes the last of the further tokens.
        above = np.asarray(parents) + self._first
        return self._engine.extend(state, token_ids, above, rows, next_tokens, keep=keep)

    def most_tokens(self, state: Any) -> int:
        """See `Engine.most_tokens`."""
        return self._engine.most_tokens(state)
