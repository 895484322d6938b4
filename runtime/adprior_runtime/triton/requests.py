"""Small inputs that more than one model reads."""

from __future__ import annotations

from adprior_runtime.bundle import Manifest
from adprior_runtime.contract import BEAM_WIDTH, MAX_TOP_K, TOP_K
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.triton.backend import Tensors


def most_top_k(manifest: Manifest, names: int) -> int:
    """Return the largest ``TOP_K`` that a deployment takes.

    A catalogue of no more names than the bundle allows costs no more, whatever is asked for.

    Args:
        manifest: The bundle's.
        names: Of its catalogue, aliases included.
    """
    most = max(manifest.max_top_k, manifest.forecast_k)
    return MAX_TOP_K if names <= most else most


def read_top_k(inputs: Tensors, default: int, most: int) -> int:
    """Return how many advertisers are asked for.

    Args:
        inputs: The request's.
        default: Of a request that does not say.
        most: What the deployment takes, from `most_top_k`.

    Raises:
        InvalidRequestError: ``TOP_K`` is out of range.
    """
    if TOP_K not in inputs:
        return default
    top_k = int(inputs[TOP_K][0])
    if not 1 <= top_k <= most:
        limit = "" if most == MAX_TOP_K else ", the bundle's max_top_k"
        raise InvalidRequestError(f"{TOP_K}: found {top_k}, expected 1 to {most}{limit}")
    return top_k


def read_beam_width(inputs: Tensors, most: int) -> int:
    """Return how many prefixes of one depth a search may expand.

    Args:
        inputs: The request's.
        most: What the deployment takes: a wider beam is as much work as a larger ``TOP_K``.

    Raises:
        InvalidRequestError: ``beam_width`` is out of range.
    """
    width = int(inputs[BEAM_WIDTH][0])
    if not 1 <= width <= most:
        raise InvalidRequestError(f"{BEAM_WIDTH}: found {width}, expected 1 to {most}")
    return width
