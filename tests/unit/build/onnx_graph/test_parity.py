from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_build.onnx_graph.parity import Parity, check_parity
from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import ArtefactError
from support.small_models import (
    FAMILIES,
    Exported,
    small_gemma3,
    small_llama,
    small_mistral,
    weights_of,
)

pytest_plugins = ("support.small_models",)

NAME = "shop/checkpoint"
HEAD = "lm_head.weight"
Weights = dict[str, npt.NDArray[np.float32]]
Export = Callable[[Callable[[], Any]], Exported]


def check(model: Any, path: Path, weights: Weights | None = None) -> Parity:
    given = weights_of(model) if weights is None else weights
    return check_parity(model.config.to_dict(), given, OnnxEngine(path), name=NAME)


@pytest.fixture(scope="module")
def llama(export: Export) -> Exported:
    return export(small_llama)


@pytest.mark.parametrize("make", FAMILIES)
def test_a_graph_agrees_with_its_checkpoint(export: Export, make: Callable[[], Any]) -> None:
    exported = export(make)
    parity = check(exported.model, exported.path)
    assert 0 < parity.difference <= parity.tolerance < 1e-2
    assert parity.mean_loss == parity.largest_loss == 0


@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_a_model_with_large_logits_passes(llama: Exported, tmp_path: Path, scale: float) -> None:
    """Rounding errors grow with the logits: a large difference is harmless for large logits."""
    weights = dict(weights_of(llama.model))
    large = weights | {HEAD: weights[HEAD] * np.float32(scale)}
    config, path = llama.model.config.to_dict(), tmp_path / "model.onnx"
    write_model(config, large, path)
    parity = check(llama.model, path, large)
    assert 1e-4 < parity.difference <= parity.tolerance
    write_model(config, weights | {HEAD: large[HEAD] * np.float32(1.01)}, path)
    with pytest.raises(ArtefactError, match="differs from the checkpoint by"):
        check(llama.model, path, large)


def swap_layers(weights: Weights) -> None:
    first, second = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    weights[first], weights[second] = weights[second], weights[first]


def negate_a_tokens_head(weights: Weights) -> None:
    weights[HEAD] = weights[HEAD].copy()
    weights[HEAD][7] *= -1


@pytest.mark.parametrize("change", [swap_layers, negate_a_tokens_head])
def test_a_graph_with_one_wrong_weight_is_refused(
    llama: Exported, change: Callable[[Weights], None]
) -> None:
    weights = dict(weights_of(llama.model))
    change(weights)
    message = rf"^{NAME}: the engine in fp32 differs from the checkpoint by .* at most .*; the en"
    with pytest.raises(ArtefactError, match=message):
        check(llama.model, llama.path, weights)


@pytest.mark.parametrize("make", [small_mistral, small_gemma3])
def test_a_window_that_a_graph_does_not_have_is_found(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    whole, windowed = make(sliding_window=64), make(sliding_window=24)
    path = tmp_path / "model.onnx"
    write_model(whole.config.to_dict(), weights_of(whole), path)
    check(whole, path)
    with pytest.raises(ArtefactError, match="differs from the checkpoint by"):
        check(windowed, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(llama: Exported, tmp_path: Path, value: float) -> None:
    weights = dict(weights_of(llama.model))
    weights[HEAD] = weights[HEAD].copy()
    weights[HEAD][3, 5] = value
    message = f"^{NAME}: the checkpoint itself gives NaN.*; train it again, with a lower"
    with pytest.raises(ArtefactError, match=message):
        check(llama.model, llama.path, weights)
    path = tmp_path / "model.onnx"
    write_model(llama.model.config.to_dict(), weights, path)
    message = f"^{NAME}: the engine in fp32 gives NaN or infinite log-probabilities, the checkpoint"
    with pytest.raises(ArtefactError, match=message):
        check(llama.model, path)
