"""Log-probabilities of the whole vocabulary, which an engine gives only token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import Engine

_Rows = npt.NDArray[np.float32]


def prefill_all(engine: Engine[Any], prompt: Sequence[int], vocabulary: int) -> tuple[Any, _Rows]:
    """Return the state after a prompt, and float32 [vocabulary]."""
    state, ranked = engine.prefill(prompt, np.arange(vocabulary))
    return state, ranked.read_all()


def extend_all(
    engine: Engine[Any],
    state: Any,
    tokens: Sequence[int],
    parents: Sequence[int],
    vocabulary: int,
    *,
    keep: bool = True,
) -> _Rows:
    """Extend a tree; return float32 [tokens, vocabulary]."""
    rows = np.repeat(np.arange(len(tokens)), vocabulary)
    asked = np.tile(np.arange(vocabulary), len(tokens))
    found = engine.extend(state, tokens, parents, rows, asked, keep=keep)
    return found.reshape(len(tokens), vocabulary)
