"""Logistic regression with an offset, by Newton's method.

scikit-learn's logistic regression takes no offset.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import InvalidInputError

_MAX_STEPS: Final = 100
_RIDGE: Final = 1e-6
"""Keeps Newton's system solvable for collinear features; it does not move the optimum."""

_Float64Array = npt.NDArray[np.float64]


def fit_logistic(
    features: _Float64Array, offsets: _Float64Array, labels: _Float64Array, l2: float
) -> tuple[_Float64Array, float]:
    """Fit P(label) = sigmoid(offset + b + w . x) by Newton's method with step halving.

    Minimises the summed log-loss + l2 / 2 * |w|^2; the bias has no penalty.

    Args:
        features: [m, features], standardised.
        offsets: [m], logits with coefficient 1.
        labels: [m], 0 or 1, some of each.
        l2: At least 0.

    Returns:
        w [features] and b.

    Raises:
        InvalidInputError: The fit does not converge: the labels are separable, ``l2`` too small.
    """
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], l2), 0.0)
    solution = np.zeros(design.shape[1])

    def loss(point: _Float64Array) -> float:
        losses = log_losses(offsets + design @ point, labels)
        return float(losses.sum() + 0.5 * (penalty * point**2).sum())

    current = loss(solution)
    for _ in range(_MAX_STEPS):
        probabilities = sigmoid(offsets + design @ solution)
        gradient = design.T @ (probabilities - labels) + penalty * solution
        curvature = (design.T * (probabilities * (1 - probabilities))) @ design
        step = np.linalg.solve(curvature + np.diag(penalty + _RIDGE), gradient)
        if float(gradient @ step) < 1e-8 * max(1.0, current):
            return solution[:-1], float(solution[-1])
        size = 1.0
        while (trial := loss(solution - size * step)) > current and size > 1e-9:
            size /= 2
        solution, current = solution - size * step, trial
    raise InvalidInputError(f"the fit does not converge in {_MAX_STEPS} steps; raise --l2 ({l2})")


def fit_recalibration(logits: _Float64Array, labels: _Float64Array) -> tuple[float, float]:
    """Fit P(label) = sigmoid(a z + b), a >= 0 (Platt, 1999), the ranker's gain without a forecast.

    Args:
        logits: [m], the ranker's z.
        labels: [m], 0 or 1, some of each.

    Returns:
        a and b. A ranker with inverted order gets a = 0, one with equal logits a = 1.
    """
    mean, scale = float(logits.mean()), float(logits.std())
    share = float(labels.mean())
    rate = float(np.log(share) - np.log1p(-share))
    if scale <= np.spacing(abs(mean)) * len(logits):
        return 1.0, rate - mean
    # Standardised, logits of any scale give a solvable system.
    standardised = ((logits - mean) / scale)[:, None]
    weights, bias = fit_logistic(standardised, np.zeros(len(logits)), labels, l2=1e-3)
    slope = float(weights[0]) / scale
    return (slope, bias - slope * mean) if slope >= 0 else (0.0, rate)


def log_losses(logits: _Float64Array, labels: _Float64Array) -> _Float64Array:
    """Return each row's log-loss in nats: [m]."""
    losses: _Float64Array = np.logaddexp(0.0, logits) - labels * logits
    return losses


def sigmoid(logits: _Float64Array) -> _Float64Array:
    """Return 1 / (1 + exp(-logit)), without overflow."""
    probabilities: _Float64Array = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return probabilities
