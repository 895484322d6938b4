"""Adapters: joined with NumPy as peft merges them, on the base that they were trained on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from adprior_build.checkpoints.adapter import Lora, write_adapter
from adprior_build.checkpoints.checkpoint import describe_base, hash_checkpoint, open_checkpoint
from adprior_runtime.errors import InvalidInputError
from support.random_checkpoint import save_random

KEPT = np.array([0, 1, 5, 17, 200], dtype=np.int32)


def write(place: Path, rslora: bool = False) -> dict[str, torch.Tensor]:
    """Write a base and an adapter of random corrections; return the weights as peft merges them."""
    base, adapter = place / "base", place / "adapter"
    save_random(base, Gemma3TextConfig, head_dim=8, num_hidden_layers=2, initializer_range=0.4)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    settings = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        adapted: Any = get_peft_model(model, settings)
    torch.manual_seed(2)
    for name, values in adapted.named_parameters():
        if "lora_" in name:
            values.data = torch.randn_like(values).half().float()
    tensors = {name: values.numpy() for name, values in get_peft_model_state_dict(adapted).items()}
    lora = Lora(rank=4, alpha=6, rslora=rslora, target_modules=["q_proj", "up_proj"])
    adapter.mkdir()
    write_adapter(adapter, tensors, lora, describe_base(base, adapter), KEPT)
    config = json.loads((base / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config | {"vocab_size": len(KEPT)}))
    merged: dict[str, torch.Tensor] = adapted.merge_and_unload().state_dict()
    return merged


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_is_joined_as_peft_merges_it(tmp_path: Path, rslora: bool) -> None:
    merged = write(tmp_path, rslora)
    joined = open_checkpoint(tmp_path / "adapter")
    plain = open_checkpoint(tmp_path / "base")
    assert joined.config["vocab_size"] == len(KEPT)
    assert set(joined.weights) == set(plain.weights) == set(merged) - {"lm_head.weight"}
    for name in joined.weights:
        expected = merged[name].numpy()
        if "embed_tokens" in name:
            expected = expected[KEPT]
        np.testing.assert_allclose(joined.weights[name], expected, atol=1e-5)
        is_corrected = name.endswith("_proj.weight")
        assert is_corrected == (
            np.shape(joined.weights[name]) == np.shape(plain.weights[name])
            and not np.allclose(joined.weights[name], plain.weights[name], atol=0.1)
        )


def test_the_hash_follows_the_scale_of_the_corrections(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "adapter" / "adapter_config.json"
    before = hash_checkpoint(tmp_path / "adapter")
    path.write_text(path.read_text().replace('"lora_alpha": 6', '"lora_alpha": 7'))
    assert hash_checkpoint(tmp_path / "adapter") != before


def test_a_whole_tensor_replaces_the_bases(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    norm = np.full(8, 0.25, dtype=np.float16)
    save_file({**load_file(path), "base_model.model.model.norm.weight": norm}, path)
    np.testing.assert_array_equal(
        open_checkpoint(tmp_path / "adapter").weights["model.norm.weight"], norm
    )


def test_an_adapter_may_correct_the_output_layer_apart_from_the_embeddings(tmp_path: Path) -> None:
    write(tmp_path)
    adapter = tmp_path / "adapter"
    plain = open_checkpoint(adapter).weights["model.embed_tokens.weight"]
    random = np.random.default_rng(1)
    first = random.normal(size=(4, plain.shape[1])).astype(np.float16)
    second = random.normal(size=(len(plain), 4)).astype(np.float16)
    stem = "base_model.model.lm_head.lora_"
    path = adapter / "adapter_model.safetensors"
    save_file({**load_file(path), f"{stem}A.weight": first, f"{stem}B.weight": second}, path)
    with pytest.raises(InvalidInputError, match=r"lm_head\.lora_A\.weight corrects no weight"):
        open_checkpoint(adapter)
    config = json.loads((adapter / "config.json").read_text()) | {"tie_word_embeddings": False}
    (adapter / "config.json").write_text(json.dumps(config))
    weights = open_checkpoint(adapter).weights
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], plain)
    expected = plain + 6 / 4 * (second.astype(np.float32) @ first.astype(np.float32))
    np.testing.assert_allclose(weights["lm_head.weight"], expected, atol=1e-5)


def drop_half(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"]
    save_file(tensors, path)


def rename_a_layer(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file({name.replace("s.1.", "s.7."): v for name, v in load_file(path).items()}, path)


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        path = adapter / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def other_base(adapter: Path) -> None:
    path = adapter.parent / "base" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def no_base(adapter: Path) -> None:
    (adapter.parent / "base").rename(adapter.parent / "elsewhere")


def no_vocabulary(adapter: Path) -> None:
    (adapter / "vocabulary.npy").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_half, r"layers\.1\.mlp\.up_proj\.lora_B\.weight corrects no weight of the base"),
        (rename_a_layer, r"layers\.7\..* corrects no weight of the base"),
        (edit("adapter_config.json", use_dora=True), "use_dora is set; expected plain LoRA"),
        (edit("adapter_config.json", peft_type="IA3"), "peft_type IA3, .* expected LORA"),
        (edit("base.json", package="os"), "the unknown package 'os'; known: gemma3_270m"),
        (edit("base.json", sha256=None), "expected the base's file and sha256"),
        (
            no_vocabulary,
            rf"adapter: no vocabulary\.npy: its vocabulary has {len(KEPT)} tokens, its",
        ),
        (other_base, r"base: SHA-256 \w{64}, expected \w{64}, the base of .*adapter"),
        (no_base, r"base\.json: its base \.\./base is not there"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    write(tmp_path)
    change(tmp_path / "adapter")
    with pytest.raises(InvalidInputError, match=message) as caught:
        open_checkpoint(tmp_path / "adapter")
    assert "\n" not in str(caught.value)


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    lora, large = Lora(rank=1, alpha=1, target_modules=["up_proj"]), np.array([[1e6]])
    write(tmp_path)
    base = describe_base(tmp_path / "base", tmp_path)
    with pytest.raises(InvalidInputError, match="large has values that float16 cannot hold"):
        write_adapter(tmp_path, {"large": large}, lora, base)
