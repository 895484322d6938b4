from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from adprior_build.repository.onnx_export import export_onnx
from adprior_build.repository.onnx_parity import check_parity
from adprior_runtime.errors import ArtefactError
from support.small_models import small_gemma3, small_llama, small_mistral

pytest_plugins = ("support.small_models",)

NAME = "shop/checkpoint"
HEAD = "lm_head.weight"
FREQUENCIES = "model.rotary_emb.inv_freq"
Weights = Mapping[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def graph(export: Callable[[Callable[[], Any]], Any]) -> Path:
    """The graph of the small Llama."""
    path: Path = export(small_llama).path
    return path


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The weights of the small Llama and the frequencies of its rotary embedding."""
    model = small_llama()
    named = dict(model.state_dict()) | dict(model.named_buffers())
    return {name: values.numpy() for name, values in named.items()}


def edit(graph: Path, path: Path, weights: Weights, changed: Weights) -> Path:
    """Write a copy of a graph with some weights changed; return its path."""
    proto = onnx.load(str(graph))
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    for name, values in changed.items():
        for old, new in ((weights[name], values), (weights[name].T, values.T)):
            for tensor, found in zip(proto.graph.initializer, stored, strict=True):
                if np.array_equal(found, old):
                    fresh = onnx.numpy_helper.from_array(np.ascontiguousarray(new), tensor.name)
                    tensor.CopyFrom(fresh)
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_a_model_with_large_logits_passes(
    graph: Path, weights: Weights, tmp_path: Path, scale: float
) -> None:
    """Rounding errors grow with the logits: a large difference is harmless for large logits."""
    model = small_llama()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    path, head = tmp_path / "model.onnx", np.float32(scale) * weights[HEAD]
    parity = check_parity(model, edit(graph, path, weights, {HEAD: head}), name=NAME)
    assert 1e-4 < parity.difference <= parity.tolerance
    slightly_more = edit(graph, path, weights, {HEAD: head * np.float32(1.01)})
    with pytest.raises(ArtefactError, match="differs from the checkpoint by"):
        check_parity(model, slightly_more, name=NAME)


def test_the_checkpoint_does_not_change(graph: Path) -> None:
    model, fresh = small_llama(), small_llama()
    check_parity(model, graph, name=NAME)
    for found, expected in zip(model.parameters(), fresh.parameters(), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def swap_layers(weights: Weights) -> Weights:
    first, second = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    return {first: weights[second], second: weights[first]}


def negate_a_tokens_head(weights: Weights) -> Weights:
    head = weights[HEAD].copy()
    head[7] *= -1
    return {HEAD: head}


def stretch_positions(weights: Weights) -> Weights:
    return {FREQUENCIES: weights[FREQUENCIES] * np.float32(1.001)}


@pytest.mark.parametrize("change", [swap_layers, negate_a_tokens_head, stretch_positions])
def test_a_graph_with_one_wrong_weight_is_refused(
    graph: Path, weights: Weights, tmp_path: Path, change: Callable[[Weights], Weights]
) -> None:
    wrong = edit(graph, tmp_path / "model.onnx", weights, change(weights))
    message = rf"^{NAME}: the graph in fp32 differs from the checkpoint by .* at most .*; the ex"
    with pytest.raises(ArtefactError, match=message):
        check_parity(small_llama(), wrong, name=NAME)


def test_a_graph_of_another_model_is_refused(graph: Path) -> None:
    for precision, remedy in (("fp32", "the export is at fault"), ("fp16", "--precision fp32")):
        with pytest.raises(ArtefactError, match=f"in {precision} differs from.*; .*{remedy}"):
            check_parity(small_llama(seed=1), graph, name=NAME, precision=precision)


def test_a_sliding_window_that_a_graph_does_not_have_is_found(graph: Path) -> None:
    """A Mistral without a window computes the same as a Llama."""
    whole, windowed = small_mistral(), small_mistral(sliding_window=24)
    for model in (whole, windowed):
        model.load_state_dict(small_llama().state_dict())
    check_parity(whole, graph, name=NAME)
    with pytest.raises(ArtefactError, match="differs from the checkpoint by"):
        check_parity(windowed, graph, name=NAME)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_graph_that_gives_nan_or_infinity_is_refused(
    graph: Path, weights: Weights, tmp_path: Path, value: float
) -> None:
    head = weights[HEAD].copy()
    head[3, 5] = value
    spoilt = edit(graph, tmp_path / "model.onnx", weights, {HEAD: head})
    message = f"^{NAME}: the graph in fp32 gives NaN or infinite log-probabilities, the checkpoint"
    with pytest.raises(ArtefactError, match=message):
        check_parity(small_llama(), spoilt, name=NAME)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_checkpoint_that_gives_nan_or_infinity_is_refused(graph: Path, value: float) -> None:
    model = small_llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[3, 5] = value
    message = f"^{NAME}: the checkpoint itself gives NaN.*; train it again, with a lower"
    with pytest.raises(ArtefactError, match=message):
        check_parity(model, graph, name=NAME)


def large_norms(scale: float) -> Any:
    """A Gemma 3, whose norms multiply by one plus a weight."""
    model = small_gemma3()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name:
                weights.add_(1).mul_(scale).sub_(1)
    return model


def test_a_model_that_overflows_half_precision_is_refused_with_the_reason(tmp_path: Path) -> None:
    message = f"^{NAME}: the graph in fp16 gives NaN.* beyond 65,504, .*; build with --precision"
    with pytest.raises(ArtefactError, match=message):
        export_onnx(large_norms(1e4), tmp_path / "model.onnx", name=NAME, precision="fp16")


@pytest.mark.parametrize("precision", ["fp16", "fp16-weights"])
def test_a_weight_too_large_for_half_precision_is_named(tmp_path: Path, precision: str) -> None:
    model = small_llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[3, 5] = -70_000
    message = f"^{NAME}: has a weight of 70,000, {precision} holds at most 65,504; build with"
    with pytest.raises(ArtefactError, match=message):
        export_onnx(model, tmp_path / "model.onnx", name=NAME, precision=precision)
