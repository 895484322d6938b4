"""The choice of a head's form and penalty, by cross-validation over the users it is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.ranking.base_ranker import RankedRows
from adprior_bench.quality.ranking.folds import case_folds
from adprior_build.head.clamp_in_graph import CLAMP, clamp_increments
from adprior_build.head.logistic_fit import fit_recalibration, log_losses
from adprior_build.head.variants import VARIANTS, Head, fit_variant
from adprior_runtime.errors import InvalidInputError

REFERENCE: Final = "reference"
"""The recalibrated base ranker without a head."""

PENALTIES: Final = (3.0, 100.0, 3000.0)
"""Penalties on squared weights: a head that finds little should change little."""

_Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadForm:
    """A form of head with its penalty, and its cross-validated log-loss in nats per row."""

    name: str
    l2: float
    log_loss: float


def compare_heads(features: _Float32Array, rows: RankedRows) -> list[HeadForm]:
    """Cross-validate recalibration and heads over users; the reference comes first.

    Raises:
        InvalidInputError: All users, or all positive rows, are in one fold.
    """
    labels = rows.impressions.labels
    folds = case_folds(rows.cases)[rows.impressions.cases]
    forms = [(name, l2) for name in VARIANTS for l2 in PENALTIES]
    found = {form: np.zeros(len(labels)) for form in [(REFERENCE, 0.0), *forms]}
    for fold in np.unique(folds).tolist():
        here, others = folds == fold, folds != fold
        if len(np.unique(labels[others])) < 2:
            raise InvalidInputError(
                f"the head's {len(rows.cases)} cases are of too few users to cross-validate on"
            )
        slope, shift = fit_recalibration(rows.logits[others], labels[others])
        offsets = slope * rows.logits + shift
        found[REFERENCE, 0.0][here] = offsets[here]
        for name, l2 in forms:
            head = fit_variant(
                name, features[others], offsets[others], labels[others], l2=l2, clamp=CLAMP
            )
            found[name, l2][here] = apply_head(head, features[here], offsets[here])
    return [
        HeadForm(name=name, l2=l2, log_loss=float(log_losses(logits, labels).mean()))
        for (name, l2), logits in found.items()
    ]


def best_head(forms: Sequence[HeadForm]) -> HeadForm:
    """Return the head with the lowest log-loss, even if that of the reference is lower."""
    return min(forms, key=lambda form: (form.name == REFERENCE, form.log_loss))


def apply_head(head: Head, features: _Float32Array, logits: Float64Array) -> Float64Array:
    """Return z + g(x) with a clamped g: float64 [rows]."""
    return logits + clamp_increments(head.increments(features), head.clamp)
