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
    ) -> LogProbs:
        """Append tokens to nodes, in passes of about the same size.

        Args:
            token_ids: int64 [n], one for each new node.
            parents: int64 [n], as `Engine.extend` takes them.
            rows: int64 [m], rising, positions in ``token_ids``.
            next_tokens: int64 [m].

        Returns:
            The log-probability of each of ``next_tokens`` after its row, as the engine gives it:
            float32 [m].
        """
        if len(token_ids) <= self.most_tokens:
            return self._pass(token_ids, parents, rows, next_tokens, keep=True)
        found, start = np.empty(len(rows), dtype=np.float32), 0
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
        """Return what `extend` returns, in double precision, from a pass that keeps no new nodes.

        Raises:
            ModelOutputError: One is NaN or +inf.
            ValueError: There are more tokens than a pass may have.
        """
        if len(token_ids) > self.most_tokens:
            raise ValueError(f"try_out: {len(token_ids)} tokens, a pass holds {self.most_tokens}")
        log_probs = self._pass(token_ids, parents, rows, next_tokens, keep=False)
        found, wrong = finite(log_probs, LEAST_LOG_PROB)
        require_numbers(wrong, len(found))
        return found

    def _pass(
        self,
        token_ids: _Int64Array,
        parents: _Int64Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
        *,
        keep: bool,
    ) -> LogProbs:
        self._before_pass()
        found = self._engine.extend(self._state, token_ids, parents, rows, next_tokens, keep=keep)
        return for_compiled(found, len(next_tokens))


def even_share(tokens: int, most: int) -> int:
    """Return the size of the first of the fewest passes of at most ``most`` tokens, all as large.

    A pass reads all weights once, so a small one costs more than its tokens.
    """
    passes = -(-tokens // most)
    return -(-tokens // passes)


def for_compiled(log_probs: LogProbs, expected: int) -> LogProbs:
    """Return log-probabilities as compiled functions take them, which check no bounds.

    Args:
        log_probs: float32 [expected], from an engine.
        expected: How many were asked for.

    Raises:
        ModelOutputError: There are fewer or more.
    """
    if log_probs.shape != (expected,):
        raise ModelOutputError(
            f"the language model's log-probabilities: found an array of {log_probs.shape}, "
            f"expected ({expected},)"
        )
    return np.ascontiguousarray(log_probs, dtype=np.float32)


def require_numbers(wrong: int, count: int) -> None:
    """Refuse log-probabilities of which ``wrong`` of ``count`` are NaN or +inf.

    Raises:
        ModelOutputError: There are such.
    """
    if wrong:
        raise ModelOutputError(
            f"the language model's log-probabilities: found NaN or +inf in {wrong} of {count}, "
            "expected at most 0"
        )
