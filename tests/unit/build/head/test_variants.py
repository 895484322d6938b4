from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.head.logistic_fit import log_losses, sigmoid
from adprior_build.head.onnx_head import HeadMetadata, adjust_logits, write_head
from adprior_build.head.variants import VARIANTS, HingeHead, fit_variant
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.head.features import FEATURE_NAMES, CandidatePriors
from adprior_runtime.head.head import PriorHead

Rows = tuple[Any, Any, Any]
Truth = Callable[[Any], Any]
KNOTS = np.array([-0.5, 0.0, 0.3, 1.2])


def hinge_head(**changed: Any) -> HingeHead:
    arguments: dict[str, Any] = {
        "weights": np.random.default_rng(2).normal(0, 0.3, 6 + len(KNOTS) + 5),
        "bias": 0.2,
        "mean": np.array([-4.0, 1.0, 0.3, 0.1, 2.0, 0.4]),
        "scale": np.array([2.0, 1.5, 0.5, 0.2, 0.6, 0.3]),
        "columns": np.array([0, 1, 1, 3]),
        "knots": KNOTS,
        "clamp": 3.0,
    }
    return HingeHead(**(arguments | changed))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> PriorHead:
    path: Path = tmp_path_factory.mktemp("heads") / "head.onnx"
    metadata = HeadMetadata(
        kind="any", forecast_k=20, engine="onnx", catalogue_fingerprint="c0ffee", fitted_rows=1
    )
    write_head(path, hinge_head(), metadata)
    return PriorHead(path)


def priors(features: Any) -> CandidatePriors:
    return CandidatePriors(
        log_probs=np.zeros(len(features), dtype=np.float32),
        statuses=np.zeros(len(features), dtype=np.uint8),
        features=features,
    )


@given(seed=st.integers(0, 2**32))
def test_the_graph_is_the_formula_for_one_row_and_for_many(written: PriorHead, seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.uniform(-6, 6, (37, len(FEATURE_NAMES))).astype(np.float32)
    base = random.normal(0, 3, 37).astype(np.float32)
    together = written.adjust(base, priors(features)).logits
    expected = adjust_logits(hinge_head(), base, priors(features)).logits
    np.testing.assert_allclose(together, expected, atol=1e-5)
    alone = [
        written.adjust(base[row : row + 1], priors(features[row : row + 1])).logits[0]
        for row in range(37)
    ]
    assert together.tobytes() == np.array(alone, dtype=np.float32).tobytes()


@given(low=st.floats(-20, 20, width=32), high=st.floats(-20, 20, width=32))
def test_an_adjusted_logit_increases_with_the_rankers(
    written: PriorHead, low: float, high: float
) -> None:
    features = np.tile(np.array([[-3, 1, 1, 0.5, 2, 0.2]], dtype=np.float32), (2, 1))
    base = np.sort(np.array([low, high], dtype=np.float32))
    adjusted = written.adjust(base, priors(features)).logits
    assert adjusted[0] <= adjusted[1]


def test_hinges_and_products_by_hand() -> None:
    head = hinge_head(
        weights=np.array([1.0, 0, 0, 0, 0, 0, 10, 100, 0, 0, 0, 0]),
        bias=0.5,
        mean=np.zeros(6),
        scale=np.array([2.0, 1, 1, 1, 1, 1]),
        columns=np.array([1]),
        knots=np.array([3.0]),
    )
    rows = np.array([[2, 5, 3, 0, 0, 0], [4, 1, 0, 0, 0, 0]], dtype=np.float32)
    assert head.increments(rows).tolist() == [0.5 + 1 + 10 * 2 + 100 * 1 * 3, 0.5 + 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": np.zeros(3)}, "weights .*, expected 15 finite numbers"),
        ({"knots": np.zeros(3)}, "knots .*, expected 4 finite numbers"),
        ({"mean": np.zeros(5)}, "mean .*, expected 6 finite numbers"),
        ({"knots": np.full(4, np.nan)}, "knots .*, expected 4 finite numbers"),
        ({"bias": np.inf}, "a finite bias"),
        ({"scale": np.zeros(6)}, "expected positive"),
        ({"clamp": 0.0}, "expected positive"),
    ],
)
def test_impossible_weights_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        hinge_head(**changed)


def make_rows(truth: Truth, count: int = 20_000, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (count, 6)).astype(np.float32)
    features[:, 2] = features[:, 2] > 0
    offsets = random.normal(-1, 1, count)
    chances = sigmoid(offsets + truth(features.astype(np.float64)))
    return features, offsets, (random.uniform(size=count) < chances).astype(np.float64)


def excess_loss(name: str, truth: Truth) -> float:
    """Return a variant's log-loss on new rows, minus that of the truth."""
    head = fit_variant(name, *make_rows(truth), l2=1.0, clamp=50.0)
    features, offsets, labels = make_rows(truth, seed=1)
    best = log_losses(offsets + truth(features.astype(np.float64)), labels).mean()
    return float(log_losses(offsets + head.increments(features), labels).mean() - best)


def linear(features: Any) -> Any:
    return 0.4 * features[:, 0] + 0.5 * features[:, 1] - 0.3 * features[:, 5] - 0.5


def bent(features: Any) -> Any:
    return 2.0 * np.maximum(features[:, 0], 0.2)


def only_exact(features: Any) -> Any:
    return np.where(features[:, 2] > 0, 1.5 * features[:, 0], 0.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_finds_a_linear_truth(name: str) -> None:
    assert excess_loss(name, linear) < 0.004


@pytest.mark.parametrize("truth", [bent, only_exact])
def test_only_hinges_find_bends_and_slopes_of_bounds(truth: Truth) -> None:
    assert excess_loss("hinges", truth) < 0.006
    assert excess_loss("logistic", truth) > 0.01


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
    with pytest.raises(InvalidInputError, match="variant forest: expected one of logistic, hinges"):
        fit_variant("forest", *make_rows(linear, 50), l2=1.0, clamp=2.0)
