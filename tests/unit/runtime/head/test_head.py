from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.head import onnx_head as prior_head
from adprior_build.head.onnx_head import (
    HeadMetadata,
    adjust_logits,
    write_head,
    write_identity_head,
)
from adprior_build.head.variants import Head
from adprior_runtime.bundle import Manifest
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import ArtefactError
from adprior_runtime.head.features import FEATURE_NAMES, CandidatePriors
from adprior_runtime.head.head import PriorHead
from adprior_runtime.head.head_graph import METADATA_KEYS

METADATA = HeadMetadata(
    forecast_k=20, engine="onnx", catalogue_fingerprint="c0ffee", fitted_rows=123
)


def _logistic(**changed: Any) -> Head:
    arguments: dict[str, Any] = {
        "weights": np.array([0.9, -0.4, 0.3, 1.5, -0.2, 0.7]),
        "bias": -0.1,
        "mean": np.array([-4.0, 1.0, 0.3, 0.1, 2.0, 0.4]),
        "scale": np.array([2.0, 1.5, 0.5, 0.2, 0.6, 0.3]),
        "clamp": 2.0,
    }
    return Head(**(arguments | changed))


def _priors(seed: int, count: int, *, has_forecast: bool = True) -> CandidatePriors:
    random = np.random.default_rng(seed)
    return CandidatePriors(
        log_probs=np.zeros(count, dtype=np.float32),
        statuses=random.integers(0, 3, count).astype(np.uint8),
        features=random.uniform(-5, 5, (count, len(FEATURE_NAMES))).astype(np.float32),
        has_forecast=has_forecast,
    )


def _logits(seed: int, count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed + 1).normal(0, 4, count).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.onnx"
    write_head(path, _logistic(), METADATA)
    return path


@pytest.fixture(scope="module")
def head(path: Path) -> PriorHead:
    return PriorHead(path)


def _rewrite(source: Path, target: Path, **metadata: str | None) -> None:
    """Copy a head and change some of its metadata; None leaves a key out."""
    model = onnx.load(source)
    found = {item.key: item.value for item in model.metadata_props} | metadata
    del model.metadata_props[:]
    kept = {key: value for key, value in found.items() if value is not None}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, target)


def test_a_head_without_adjustments_is_refused_with_the_remedy(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    del model.graph.output[1]
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(ArtefactError, match=r"found the output .* \(adprior fit-head\), then"):
        PriorHead(tmp_path / "old.onnx")


@given(st.integers(0, 2**32), st.integers(0, 40), st.booleans())
def test_the_graph_is_the_formula(
    head: PriorHead, seed: int, count: int, has_forecast: bool
) -> None:
    priors, base = _priors(seed, count, has_forecast=has_forecast), _logits(seed, count)
    adjusted = head.adjust(base, priors)
    assert adjusted.logits.dtype == adjusted.adjustments.dtype == np.float32
    np.testing.assert_allclose(adjusted, adjust_logits(_logistic(), base, priors), atol=1e-5)
    changed = base + adjusted.adjustments
    np.testing.assert_array_equal(adjusted.logits, changed)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_without_a_prior_a_logit_keeps_every_bit(head: PriorHead, seed: int, count: int) -> None:
    base = _logits(seed, count)
    base[0] = -0.0
    off, without = _priors(seed, count), _priors(seed, count, has_forecast=False)
    off.statuses[:] = CandidateStatus.NOT_IN_CATALOGUE
    without.features[0] = np.nan  # the graph selects, and never multiplies
    for priors in (off, without):
        adjusted = head.adjust(base, priors)
        assert adjusted.logits.tobytes() == base.tobytes()
        assert not adjusted.adjustments.any()


@given(st.integers(0, 2**32))
def test_a_candidates_adjustment_does_not_depend_on_the_others(head: PriorHead, seed: int) -> None:
    priors, base = _priors(seed, 40), _logits(seed, 40)
    together = head.adjust(base, priors).logits
    alone = []
    for row in range(40):
        part = replace(
            priors,
            log_probs=priors.log_probs[row : row + 1],
            statuses=priors.statuses[row : row + 1],
            features=priors.features[row : row + 1],
        )
        alone.append(head.adjust(base[row : row + 1], part).logits[0])
    assert together.tobytes() == np.array(alone, dtype=np.float32).tobytes()


def test_no_logit_moves_more_than_the_clamp(tmp_path: Path) -> None:
    write_head(tmp_path / "head.onnx", _logistic(clamp=0.25), METADATA)
    head = PriorHead(tmp_path / "head.onnx")
    moved = head.adjust(np.zeros(200, dtype=np.float32), _priors(1, 200)).adjustments
    assert head.metadata["clamp"] == "0.25"
    assert np.abs(moved).max() == 0.25
    assert (moved == 0.25).any()
    assert (moved == -0.25).any()


def test_the_metadata_are_read_back(head: PriorHead) -> None:
    assert set(METADATA_KEYS) <= set(head.metadata)
    assert head.metadata["kind"] == "logistic"
    assert head.metadata["forecast_k"] == "20"
    assert head.metadata["engine"] == "onnx"
    assert head.metadata["catalogue_fingerprint"] == "c0ffee"
    assert head.metadata["fitted_rows"] == "123"


def test_a_head_is_right_for_every_engine_of_the_exact_search(head: PriorHead) -> None:
    manifest = Manifest(
        bundle_id="", training={}, commands=(), forecast_k=20, catalogue_lineage=("c0ffee",)
    )
    for engine in ("onnx", "torch"):
        head.require_belongs(replace(manifest, engine=engine))
    with pytest.raises(ArtefactError, match="fitted with engine onnx, the bundle's is tensorrt"):
        head.require_belongs(replace(manifest, engine="tensorrt-llm"))


def test_the_identity_head_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "head.onnx"
    write_identity_head(path, forecast_k=5, engine="onnx", catalogue_fingerprint="f")
    head = PriorHead(path)
    base = _logits(0, 50)
    assert head.metadata["kind"] == "identity"
    assert (head.adjust(base, _priors(0, 50)).logits == base).all()
    assert (head.is_fitted, head.limit) == (False, 0.0)


def test_a_fitted_head_that_adds_nothing_counts_as_fitted(tmp_path: Path) -> None:
    path = tmp_path / "head.onnx"
    write_head(path, replace(_logistic(), weights=np.zeros(6), bias=0.0, clamp=1.5), METADATA)
    head = PriorHead(path)
    assert (head.adjust(_logits(0, 50), _priors(0, 50)).logits == _logits(0, 50)).all()
    assert (head.is_fitted, head.limit) == (True, 1.5)


def test_writing_twice_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_head(tmp_path / "head.onnx", _logistic(), METADATA)
    assert (tmp_path / "head.onnx").read_bytes() == path.read_bytes()


def test_a_graph_that_differs_from_numpy_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prior_head.adjust_logits
    monkeypatch.setattr(
        prior_head, "adjust_logits", lambda *given: [part + 1e-3 for part in real(*given)]
    )
    with pytest.raises(ArtefactError, match="differs from NumPy"):
        write_head(tmp_path / "head.onnx", _logistic(), METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_corrupt_file_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"none\.onnx: not a prior head"):
        PriorHead(tmp_path / "none.onnx")
    corrupt = tmp_path / "corrupt.onnx"
    for content in (b"", b"not a graph", path.read_bytes()[:-200]):
        corrupt.write_bytes(content)
        with pytest.raises(ArtefactError, match=r"corrupt\.onnx: not a prior head") as caught:
            PriorHead(corrupt)
        assert "\n" not in str(caught.value)


def test_another_graph_is_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].name = "logits"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "base_logits":
                node.input[index] = "logits"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtefactError, match="found inputs"):
        PriorHead(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"feature_names": '["log_prob", "rank"]'}, r"fitted with features \['log_prob', 'rank'\]"),
        ({"feature_names": "log_prob"}, "malformed"),
        ({"feature_names": "3"}, "malformed"),
        ({"clamp": "wide"}, "malformed"),
        ({"clamp": "-1"}, "clamp -1"),
        ({"clamp": "nan"}, "clamp nan"),
        ({"forecast_k": None}, "lack forecast_k"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    path: Path, tmp_path: Path, metadata: dict[str, str | None], message: str
) -> None:
    _rewrite(path, tmp_path / "head.onnx", **metadata)
    with pytest.raises(ArtefactError, match=message):
        PriorHead(tmp_path / "head.onnx")


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": np.zeros(5)},
        {"mean": np.full(6, np.nan)},
        {"scale": np.zeros(6)},
        {"bias": np.inf},
        {"clamp": 0.0},
    ],
)
def test_an_impossible_head_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="head: "):
        _logistic(**changed)
