from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_build.training.lora import add_lora
from adprior_build.training.optimizer import trained_parameters


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=20,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(6)[None]).logits
    return found


def test_new_adapters_change_nothing_and_only_they_are_trained(model: Any) -> None:
    before = logits(model)
    add_lora(model, rank=2, alpha=4)
    assert torch.equal(logits(model), before)
    trained = trained_parameters(model)
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    # Each matrix [out, in] has a correction of rank 2: 2 * (out + in) numbers.
    shapes = [(8, 8), (4, 8), (4, 8), (8, 8), (12, 8), (12, 8), (8, 12)]
    assert sum(w.numel() for w in trained.values()) == sum(2 * (a + b) for a, b in shapes)


def test_the_merged_weight_is_the_sum(model: Any) -> None:
    names = {name for name, _ in model.named_parameters()}
    layer = model.model.layers[0].mlp.gate_proj
    weight = layer.weight.detach().clone()
    adapted = add_lora(model, rank=2, alpha=6)
    wrapped = model.model.layers[0].mlp.gate_proj
    torch.nn.init.normal_(wrapped.lora_B["default"].weight)
    product = wrapped.lora_B["default"].weight @ wrapped.lora_A["default"].weight
    before = logits(model)
    merged = adapted.merge_and_unload()
    assert {name for name, _ in merged.named_parameters()} == names
    found = merged.model.layers[0].mlp.gate_proj.weight
    torch.testing.assert_close(found, weight + 6 / 2 * product)
    torch.testing.assert_close(logits(merged), before, atol=1e-5, rtol=1e-4)
