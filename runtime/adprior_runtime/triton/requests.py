"""Small inputs that more than one model reads."""

from __future__ import annotations

from adprior_runtime.contract import BEAM_WIDTH, MAX_TOP_K, TOP_K
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.triton.backend import Tensors

__all__ = ["read_beam_width", "read_top_k"]


def read_top_k(inputs: Tensors, default: int) -> int:
    """Return how many advertisers are asked for.

    Raises:
        InvalidRequestError: ``TOP_K`` is out of range.
    """
    if TOP_K not in inputs:
        return default
    top_k = int(inputs[TOP_K][0])
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidRequestError(f"{TOP_K}: {top_k}, expected 1 to {MAX_TOP_K}")
    return top_k


def read_beam_width(inputs: Tensors) -> int:
    """Return how many prefixes of one depth a search may expand.

    Raises:
        InvalidRequestError: ``beam_width`` is out of range.
    """
    width = int(inputs[BEAM_WIDTH][0])
    if not 1 <= width <= MAX_TOP_K:
        raise InvalidRequestError(f"{BEAM_WIDTH}: found {width}, expected 1 to {MAX_TOP_K}")
    return width
