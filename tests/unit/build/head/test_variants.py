from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adprior_build.head.logistic_fit import log_losses, sigmoid
from adprior_build.head.onnx_head import LogisticHead
from adprior_build.head.variants import VARIANTS, fit_variant
from adprior_runtime.errors import InvalidInputError

Rows = tuple[Any, Any, Any]


def make_rows(truth: Any, count: int = 20_000, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (count, 6)).astype(np.float32)
    offsets = random.normal(-1, 1, count)
    chances = sigmoid(offsets + truth(features.astype(np.float64)))
    return features, offsets, (random.uniform(size=count) < chances).astype(np.float64)


def loss_of(name: str, truth: Any) -> float:
    """Return a variant's log-loss on fresh rows beyond the truth's."""
    features, offsets, labels = make_rows(truth, seed=0)
    head = fit_variant(name, features, offsets, labels, l2=1.0, clamp=50.0)
    features, offsets, labels = make_rows(truth, seed=1)
    best = log_losses(offsets + truth(features.astype(np.float64)), labels).mean()
    return float(log_losses(offsets + head.increments(features), labels).mean() - best)


def linear(features: Any) -> Any:
    return 0.4 * features[:, 0] + 0.5 * features[:, 1] - 0.3 * features[:, 5] - 0.5


def bent(features: Any) -> Any:
    return 2.0 * np.maximum(features[:, 0], 0.2)


def crossed(features: Any) -> Any:
    return features[:, 1] * features[:, 4]


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"without-popularity"}))
def test_every_variant_finds_a_linear_truth(name: str) -> None:
    assert loss_of(name, linear) < 0.004  # of 73 weights, 20,000 rows: 0.002 is expected


@pytest.mark.parametrize(
    ("truth", "able", "unable"),
    [
        (bent, ("hinges", "mlp"), "logistic"),
        (crossed, ("products", "mlp"), "logistic"),
        (linear, ("logistic",), "without-popularity"),
    ],
)
def test_each_variant_is_for_something(truth: Any, able: tuple[str, ...], unable: str) -> None:
    for name in able:
        assert loss_of(name, truth) < 0.006
    assert loss_of(unable, truth) > 0.01


def test_hinges_give_bounds_slopes_of_their_own() -> None:
    def bounds_say_nothing(features: Any) -> Any:
        return np.where(features[:, 2] > 0, features[:, 0], 0.0)

    def rows(seed: int) -> Rows:
        features, offsets, _ = make_rows(linear, seed=seed)
        features[:, 2] = features[:, 2] > 0
        chances = sigmoid(offsets + bounds_say_nothing(features.astype(np.float64)))
        draws = np.random.default_rng(seed + 2).uniform(size=len(offsets))
        return features, offsets, (draws < chances).astype(np.float64)

    features, _, _ = rows(1)
    errors = {}
    for name in ("hinges", "logistic"):
        head = fit_variant(name, *rows(0), l2=1.0, clamp=50.0)
        errors[name] = np.abs(head.increments(features) - bounds_say_nothing(features)).mean()
    assert errors["hinges"] < 0.12
    assert errors["logistic"] > 0.3


def test_without_popularity_has_no_weight_for_it() -> None:
    head = fit_variant("without-popularity", *make_rows(linear, 500), l2=1.0, clamp=2.0)
    assert isinstance(head, LogisticHead)
    assert head.weights[1] == 0
    assert (head.weights[[0, 5]] != 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_constant_column_and_a_second_fit_change_nothing(name: str) -> None:
    features, offsets, labels = make_rows(linear, 500)
    features[:, 2] = 1.0
    first, second = (
        fit_variant(name, features, offsets, labels, l2=1.0, clamp=2.0).increments(features)
        for _ in range(2)
    )
    assert np.isfinite(first).all()
    assert first.tobytes() == second.tobytes()


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="head variant forest: expected one of logistic,"):
        fit_variant("forest", *make_rows(linear, 50), l2=1.0, clamp=2.0)
