"""The clamp of the prior head, applied by the last nodes of the graph that Triton serves.

A head adds g to the ranker's logit, limited to the clamp in both directions. Without a prior (no
forecast, or a candidate that is not in the catalogue) the adjustment is 0 and the logit stays the
same bit for bit, because the graph selects with ``Where`` and never multiplies. All forms of head
share these nodes; `clamp_increments` is the same limit for NumPy.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from adprior_runtime.contract import CandidateStatus
from adprior_runtime.head import head_graph
from adprior_runtime.head.features import CandidatePriors
from adprior_runtime.head.head import Adjusted

CLAMP: Final = 2.0
"""The default clamp: a head multiplies the odds by at most e^2 = 7.4."""


def clamp_increments(increments: npt.NDArray[np.float64], clamp: float) -> npt.NDArray[np.float64]:
    """Return g limited to the clamp: [n] -> [n]."""
    return np.clip(increments, -clamp, clamp)


def apply_in_numpy(
    increments: npt.NDArray[np.float64],
    clamp: float,
    base_logits: npt.NDArray[np.float32],
    priors: CandidatePriors,
) -> Adjusted:
    """Return the values that `clamp_nodes` compute in the graph.

    Args:
        increments: g of each candidate.
        clamp: Positive.
        base_logits: The ranker's logits.
        priors: The priors of the same candidates.
    """
    applies = (priors.statuses != CandidateStatus.NOT_IN_CATALOGUE) & priors.has_forecast
    clipped = clamp_increments(increments, clamp)
    adjustments = np.where(applies, clipped, 0.0).astype(np.float32)
    return Adjusted(np.where(applies, base_logits + adjustments, base_logits), adjustments)


def clamp_nodes(increment: str) -> list[Any]:
    """Return ONNX nodes from ``increment``, float64 [n], to the head's outputs."""
    base_logits = head_graph.BASE_LOGITS
    return [
        helper.make_node("Clip", [increment, "least", "most"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["narrow"], to=TensorProto.FLOAT),
        helper.make_node("Add", [base_logits, "narrow"], ["moved"]),
        helper.make_node("Cast", [head_graph.STATUSES], ["status"], to=TensorProto.INT32),
        helper.make_node("Equal", ["status", "off_catalogue"], ["unknown"]),
        helper.make_node("Not", ["unknown"], ["known"]),
        helper.make_node("And", ["known", head_graph.HAS_FORECAST], ["applies"]),
        helper.make_node("Where", ["applies", "moved", base_logits], [head_graph.ADJUSTED_LOGITS]),
        helper.make_node("Where", ["applies", "narrow", "no_adjustment"], [head_graph.ADJUSTMENTS]),
    ]


def clamp_constants(clamp: float) -> dict[str, npt.NDArray[Any]]:
    """Return the constants of `clamp_nodes` by name."""
    return {
        "least": np.array(-clamp, dtype=np.float64),
        "most": np.array(clamp, dtype=np.float64),
        "off_catalogue": np.array(CandidateStatus.NOT_IN_CATALOGUE, dtype=np.int32),
        "no_adjustment": np.array(0.0, dtype=np.float32),
    }
