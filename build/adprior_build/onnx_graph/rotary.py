"""Reads a checkpoint's rotary position embeddings (arXiv 2104.09864)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.architecture import Rotation
from adprior_runtime.errors import InvalidInputError

_Float64Array = npt.NDArray[np.float64]
_LOCAL: Final = "sliding_attention"
_THETA: Final = 10_000.0
_KINDS: Final = ("default", "linear", "llama3")


def read_rotation(settings: Mapping[str, Any], kind: str, head_size: int) -> Rotation:
    """Read the rotation of one kind of layer.

    Transformers 5 writes ``rope_parameters``, for some families one for each kind of layer. Earlier
    versions write ``rope_theta`` and ``rope_scaling``, and for the sliding layers of Gemma 3
    ``rope_local_base_freq``, which are never scaled.

    Args:
        settings: ``config.json`` with the family's defaults.
        kind: ``full_attention`` or ``sliding_attention``.
        head_size: Numbers in a head.

    Raises:
        InvalidInputError: The scaling is not one of ``default``, ``linear`` and ``llama3``.
    """
    found = settings.get("rope_parameters") or {}
    if "full_attention" in found or _LOCAL in found:
        found = found.get(kind) or {}
    elif not found:
        is_gemma3 = settings.get("model_type") == "gemma3_text"
        if is_gemma3 and kind == _LOCAL:
            found = {"rope_theta": settings.get("rope_local_base_freq", _THETA)}
        else:
            theta = settings.get("rope_theta", 1e6 if is_gemma3 else _THETA)
            found = {"rope_theta": theta, **(settings.get("rope_scaling") or {})}
    scaling = found.get("rope_type", found.get("type", "default"))
    share = found.get("partial_rotary_factor", settings.get("partial_rotary_factor", 1.0))
    if scaling not in _KINDS or share != 1.0:
        raise InvalidInputError(
            f"config.json: the rotary embedding is {scaling!r} on {share:g} of each head, expected "
            f"{', '.join(_KINDS)} on all of it"
        )
    theta = float(found.get("rope_theta", settings.get("rope_theta", _THETA)))
    frequencies = theta ** (-np.arange(0, head_size, 2) / head_size)
    if scaling == "linear":
        frequencies = frequencies / float(found["factor"])
    elif scaling == "llama3":
        frequencies = _llama3(frequencies, found)
    return Rotation(tuple(frequencies.tolist()))


def _llama3(frequencies: _Float64Array, scaling: Mapping[str, Any]) -> _Float64Array:
    """Slow the low frequencies down, as Llama 3.1 does.

    Wavelengths shorter than ``original / high_freq_factor`` stay, longer than ``original /
    low_freq_factor`` are divided by ``factor``, and those between are interpolated.
    """
    factor = float(scaling["factor"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    slowed: _Float64Array = frequencies * (kept + (1 - kept) / factor)
    return slowed
