"""Which form of the head to ship: cross-validation over the users that it is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.folds import FOLDS, case_folds
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_build.head.logistic_fit import fit_recalibration, log_losses
from adprior_build.head.onnx_head import Head
from adprior_build.head.variants import VARIANTS, fit_variant
from adprior_runtime.errors import InvalidInputError

REFERENCE: Final = "reference"
"""The base ranker's own logit recalibrated, without a head."""

PENALTIES: Final = (3.0, 100.0, 3000.0)
"""On squared weights: a head that finds little should move little."""

CLAMP: Final = 2.0
"""As `adprior fit-head` has it."""

_Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedRows:
    """A simulated log with the base ranker's logits.

    Attributes:
        cases: What the requests were made of.
        impressions: The candidates.
        logits: float64 [rows].
    """

    cases: Sequence[EncodedCase]
    impressions: Impressions
    logits: Float64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VariantFigures:
    """A head variant, cross-validated over the head's users.

    Attributes:
        name: One of `adprior_build.head.variants.VARIANTS`, or `REFERENCE`: no head.
        l2: Its penalty.
        log_loss: In nats a row.
        logits: float64 [rows], each by a head that was fitted without the row's user.
    """

    name: str
    l2: float
    log_loss: float
    logits: Float64Array


def compare_variants(features: _Float32Array, rows: RankedRows) -> list[VariantFigures]:
    """Cross-validate every variant over users, recalibration and all; the reference comes first.

    Args:
        features: Of the rows.
        rows: What the head is fitted on.

    Raises:
        InvalidInputError: All users are in one fold, or all positive rows.
    """
    labels = rows.impressions.labels
    folds = case_folds(rows.cases, FOLDS)[rows.impressions.cases]
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
        VariantFigures(
            name=name,
            l2=l2,
            log_loss=float(log_losses(logits, labels).mean()),
            logits=logits,
        )
        for (name, l2), logits in found.items()
    ]


def best_variant(figures: Sequence[VariantFigures]) -> VariantFigures:
    """Return the variant of the least log-loss; the reference, which is no head, does not count."""
    return min(figures, key=lambda item: (item.name == REFERENCE, item.log_loss))


def apply_head(head: Head, features: _Float32Array, logits: Float64Array) -> Float64Array:
    """Return z + g(x), g clamped: float64 [rows]."""
    return logits + np.clip(head.increments(features), -head.clamp, head.clamp)
