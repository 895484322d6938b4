"""One user's passes through the language model: limited in size, and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import Engine, LogProbs
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.search.expansion import finite

_Int64Array = npt.NDArray[np.int64]
_Float64Array = npt.NDArray[np.float64]

LEAST_LOG_PROB: Final = -1e5
"""Lower log-probabilities are raised to this. The probability is 0 in double precision either way,
and sums over a path stay finite, so that -inf can mean "not open"."""


class ForwardPasses:
    """Runs an engine below one prompt.

    Args:
        engine: The language model.
        state: From `Engine.prefill`.
        before_pass: Called before each forward pass; an exception ends the search.
    """

    def __init__(self, engine: Engine[Any], state: Any, before_pass: Callable[[], None]) -> None:
        self._engine, self._state, self._before_pass = engine, state, before_pass

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens that the next pass may extend."""
        return self._engine.most_tokens(self._state)

    def extend(
        self,
        token_ids: _Int64Array,
        parents: _Int64Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
    ) -> _Float64Array:
        """Append tokens to nodes, in passes of about the same size.

        Args:
            token_ids: int64 [n], one for each new node.
            parents: int64 [n], as `Engine.extend` takes them.
            rows: int64 [m], rising, positions in ``token_ids``.
            next_tokens: int64 [m].

        Returns:
            The log-probability of each of ``next_tokens`` after its row: float64 [m].
        """
        if len(token_ids) <= self.most_tokens:
            return self._pass(token_ids, parents, rows, next_tokens, keep=True)
        found, start = np.empty(len(rows)), 0
        while start < len(token_ids):
            part = slice(start, start + even_share(len(token_ids) - start, self.most_tokens))
            here = slice(*np.searchsorted(rows, [part.start, part.stop]))
            found[here] = self._pass(
                token_ids[part], parents[part], rows[here] - start, next_tokens[here], keep=True
            )
            start = part.stop
        return found

    def try_out(
        self,
        token_ids: _Int64Array,
        parents: _Int64Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
    ) -> _Float64Array:
        """Return what `extend` returns, from one pass that keeps no new nodes.

        Raises:
            ValueError: There are more tokens than a pass may have.
        """
        if len(token_ids) > self.most_tokens:
            raise ValueError(f"try_out: {len(token_ids)} tokens, a pass holds {self.most_tokens}")
        return self._pass(token_ids, parents, rows, next_tokens, keep=False)

    def _pass(
        self,
        token_ids: _Int64Array,
        parents: _Int64Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
        *,
        keep: bool,
    ) -> _Float64Array:
        self._before_pass()
        found = self._engine.extend(self._state, token_ids, parents, rows, next_tokens, keep=keep)
        return checked_log_probs(found, len(next_tokens))


def even_share(tokens: int, most: int) -> int:
    """Return the size of the first of the fewest passes of at most ``most`` tokens, all as large.

    A pass reads all weights once, so a small one costs more than its tokens.
    """
    passes = -(-tokens // most)
    return -(-tokens // passes)


def checked_log_probs(log_probs: LogProbs, expected: int) -> _Float64Array:
    """Return log-probabilities as finite numbers in double precision.

    Args:
        log_probs: float32 [expected], from an engine.
        expected: How many were asked for. Compiled functions check no bounds.

    Raises:
        ModelOutputError: There are fewer or more, or one is NaN or +inf.
    """
    if np.shape(log_probs) != (expected,):
        raise ModelOutputError(
            f"the language model's log-probabilities: found an array of {np.shape(log_probs)}, "
            f"expected ({expected},)"
        )
    given = np.ascontiguousarray(log_probs, dtype=np.float32)
    found, wrong = finite(given, LEAST_LOG_PROB)
    if wrong:
        raise ModelOutputError(
            f"the language model's log-probabilities: found NaN or +inf in {wrong} of "
            f"{len(log_probs)}, expected at most 0"
        )
    return found
