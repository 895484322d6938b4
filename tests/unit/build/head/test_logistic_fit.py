from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from adprior_build.head import logistic_fit
from adprior_build.head.logistic_fit import fit_logistic, fit_recalibration, log_losses, sigmoid
from adprior_runtime.errors import InvalidInputError


def test_newton_recovers_planted_weights() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(60_000, 3))
    offsets = random.normal(size=60_000)
    weights, bias = np.array([0.5, -1.0, 0.0]), -1.2
    chances = 1 / (1 + np.exp(-(offsets + bias + features @ weights)))
    labels = (random.uniform(size=60_000) < chances).astype(np.float64)
    fitted, fitted_bias = fit_logistic(features, offsets, labels, 1.0)
    np.testing.assert_allclose(fitted, weights, atol=0.05)
    assert abs(fitted_bias - bias) < 0.05


def test_the_gradient_is_zero_at_the_fit() -> None:
    random = np.random.default_rng(4)
    features = random.normal(size=(500, 2)) @ np.array([[1.0, 1.0], [0.0, 0.0]])
    labels = (random.uniform(size=500) < 0.3).astype(np.float64)
    weights, bias = fit_logistic(features, np.zeros(500), labels, 0.7)
    residuals = 1 / (1 + np.exp(-(features @ weights + bias))) - labels
    np.testing.assert_allclose(features.T @ residuals + 0.7 * weights, 0, atol=1e-2)
    assert abs(residuals.sum()) < 1e-2


def test_separable_labels_without_a_penalty_stop_at_finite_weights() -> None:
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    weights, bias = fit_logistic(features, np.zeros(4), labels, 0.0)
    assert 5 < weights[0] < 100
    assert abs(bias) < 1


def test_a_fit_that_does_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_fit, "_MAX_STEPS", 1)
    with pytest.raises(InvalidInputError, match="raise --l2"):
        fit_logistic(np.ones((4, 1)), np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0]), 1.0)


def test_newton_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(8)
    features = random.normal(size=(400, 3))
    labels = (random.uniform(size=400) < sigmoid(features @ [1.0, -0.5, 0.2])).astype(np.float64)
    weights, bias = fit_logistic(features, np.zeros(400), labels, 2.0)
    peer = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=1000).fit(features, labels)
    np.testing.assert_allclose(weights, peer.coef_[0], atol=1e-4)
    assert bias == pytest.approx(peer.intercept_[0], abs=1e-4)


def test_recalibration_undoes_a_stretch_and_a_shift() -> None:
    random = np.random.default_rng(9)
    true = random.normal(-1, 1.5, 100_000)
    labels = (random.uniform(size=len(true)) < sigmoid(true)).astype(np.float64)
    slope, bias = fit_recalibration(2 * true + 3, labels)
    assert slope == pytest.approx(0.5, abs=0.02)
    assert bias == pytest.approx(-1.5, abs=0.06)


def test_a_ranker_with_inverted_order_gets_the_mean() -> None:
    labels = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    slope, bias = fit_recalibration(np.array([-1.0, -2, 2, 1, 1, 3, 1, -1]), labels)
    assert slope == 0.0
    assert bias == pytest.approx(np.log(2 / 6), abs=1e-3)


@pytest.mark.parametrize("stretch", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [-2e4, 0.0, 3.0])
def test_recalibration_works_for_logits_of_any_scale(stretch: float, shift: float) -> None:
    """Separable labels are included."""
    logits = np.linspace(-3.0, 3.0, 40)
    for labels in ((logits > 0).astype(np.float64), (np.arange(40) % 3 == 0).astype(np.float64)):
        slope, bias = fit_recalibration(logits, labels)
        other_slope, other_bias = fit_recalibration(stretch * logits + shift, labels)
        found = other_slope * (stretch * logits + shift) + other_bias
        np.testing.assert_allclose(found, slope * logits + bias, atol=1e-4)


def test_equal_logits_are_only_shifted() -> None:
    slope, bias = fit_recalibration(np.full(8, -20.0), np.eye(8)[0] + np.eye(8)[1])
    assert slope == 1.0
    assert bias == pytest.approx(np.log(2 / 6) + 20.0)


def test_losses_are_negative_log_likelihoods() -> None:
    logits, labels = np.array([0.0, 2.0, -800.0, 800.0]), np.array([1.0, 0.0, 1.0, 1.0])
    expected = [np.log(2), np.log1p(np.exp(2)), 800, 0]
    np.testing.assert_allclose(log_losses(logits, labels), expected, atol=1e-12)
    np.testing.assert_allclose(sigmoid(np.array([-800.0, 0.0, 800.0])), [0, 0.5, 1], atol=1e-12)
