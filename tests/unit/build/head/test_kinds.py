from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.head.kinds import BasisHead, MlpHead
from adprior_build.head.onnx_head import Head, HeadMetadata, adjust_logits, write_head
from adprior_runtime.errors import ArtefactError
from adprior_runtime.head.features import FEATURE_NAMES, CandidatePriors
from adprior_runtime.head.head import PriorHead

SCALES: dict[str, Any] = {
    "mean": np.array([-4.0, 1.0, 0.3, 0.1, 2.0, 0.4]),
    "scale": np.array([2.0, 1.5, 0.5, 0.2, 0.6, 0.3]),
    "clamp": 3.0,
}


def basis(hinges: int = 4, products: int = 5, **changed: Any) -> BasisHead:
    random = np.random.default_rng(2)
    arguments: dict[str, Any] = {
        "weights": random.normal(0, 0.3, len(FEATURE_NAMES) + hinges + products),
        "bias": 0.2,
        "hinge_columns": random.integers(0, 6, hinges),
        "knots": random.normal(size=hinges),
        "products": random.integers(0, 6, (products, 2)),
    }
    return BasisHead(**(SCALES | arguments | changed))


def mlp(**changed: Any) -> MlpHead:
    random = np.random.default_rng(3)
    arguments: dict[str, Any] = {
        "inner": random.normal(size=(6, 8)),
        "inner_bias": random.normal(size=8),
        "weights": random.normal(size=8),
        "direct": random.normal(size=6),
        "bias": -0.3,
    }
    return MlpHead(**(SCALES | arguments | changed))


HEADS: dict[str, Head] = {
    "basis": basis(),
    "hinges alone": basis(products=0),
    "products alone": basis(hinges=0),
    "mlp": mlp(),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PriorHead]:
    place = tmp_path_factory.mktemp("heads")
    return {name: write(head, place / f"{name}.onnx") for name, head in HEADS.items()}


def write(head: Head, path: Path) -> PriorHead:
    metadata = HeadMetadata(
        kind="any", forecast_k=20, engine="onnx", catalogue_fingerprint="c0ffee", fitted_rows=1
    )
    write_head(path, head, metadata)
    return PriorHead(path)


def priors(features: np.ndarray[Any, np.dtype[np.float32]]) -> CandidatePriors:
    return CandidatePriors(
        log_probs=np.zeros(len(features), dtype=np.float32),
        statuses=np.zeros(len(features), dtype=np.uint8),
        features=features,
    )


@pytest.mark.parametrize("name", HEADS)
@given(seed=st.integers(0, 2**32))
def test_the_graph_is_the_formula_for_one_row_and_for_many(
    written: dict[str, PriorHead], name: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    features = random.uniform(-6, 6, (37, len(FEATURE_NAMES))).astype(np.float32)
    base = random.normal(0, 3, 37).astype(np.float32)
    together = written[name].adjust(base, priors(features)).logits
    np.testing.assert_allclose(
        together, adjust_logits(HEADS[name], base, priors(features)).logits, atol=1e-5
    )
    alone = [
        written[name].adjust(base[row : row + 1], priors(features[row : row + 1])).logits[0]
        for row in range(37)
    ]
    assert together.tobytes() == np.array(alone, dtype=np.float32).tobytes()


@pytest.mark.parametrize("name", HEADS)
@given(low=st.floats(-20, 20, width=32), high=st.floats(-20, 20, width=32))
def test_an_adjusted_logit_rises_with_the_ranker_s(
    written: dict[str, PriorHead], name: str, low: float, high: float
) -> None:
    features = np.tile(np.array([[-3, 1, 1, 0.5, 2, 0.2]], dtype=np.float32), (2, 1))
    base = np.sort(np.array([low, high], dtype=np.float32))
    adjusted = written[name].adjust(base, priors(features)).logits
    assert adjusted[0] <= adjusted[1]


def test_hinges_and_products_by_hand() -> None:
    head = BasisHead(
        weights=np.array([1.0, 0, 0, 0, 0, 0, 10, 100]),
        bias=0.5,
        mean=np.zeros(6),
        scale=np.array([2.0, 1, 1, 1, 1, 1]),
        hinge_columns=np.array([1]),
        knots=np.array([3.0]),
        products=np.array([[0, 2]]),
        clamp=1000.0,
    )
    rows = np.array([[2, 5, 3, 0, 0, 0], [4, 1, 0, 0, 0, 0]], dtype=np.float32)
    assert head.increments(rows).tolist() == [0.5 + 1 + 10 * 2 + 100 * 1 * 3, 0.5 + 2]


def test_a_hidden_unit_by_hand() -> None:
    head = MlpHead(
        inner=np.array([[1.0]] + [[0.0]] * 5),
        inner_bias=np.array([1.0]),
        weights=np.array([4.0]),
        direct=np.array([0, 10.0, 0, 0, 0, 0]),
        bias=0.25,
        mean=np.zeros(6),
        scale=np.ones(6),
        clamp=2.0,
    )
    rows = np.zeros((2, 6), dtype=np.float32)
    rows[:, 0], rows[:, 1] = [2, -4], [0, 1]
    assert head.increments(rows).tolist() == [4 * 3 / 4 + 0.25, 4 * -3 / 4 + 10 + 0.25]


@pytest.mark.parametrize(
    ("make", "changed", "message"),
    [
        (basis, {"weights": np.zeros(3)}, "weights and products"),
        (basis, {"knots": np.full(4, np.nan)}, "not finite"),
        (basis, {"scale": np.zeros(6)}, "expected positive"),
        (basis, {"mean": np.zeros(5)}, r"mean \(5,\)"),
        (mlp, {"inner": np.zeros((6, 7))}, "do not fit each other"),
        (mlp, {"bias": np.inf}, "not finite"),
        (mlp, {"clamp": 0.0}, "expected positive"),
    ],
)
def test_what_fits_no_head_is_refused(make: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        make(**changed)
