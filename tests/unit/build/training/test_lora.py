from __future__ import annotations

from typing import Any

import pytest
import torch

from adprior_build.training.lora import add_lora
from adprior_build.training.optimizer import trained_parameters
from support.small_models import small_llama


@pytest.fixture
def model() -> Any:
    return small_llama()


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
    matrices = [w for name, w in model.named_parameters() if name.endswith("base_layer.weight")]
    assert len(matrices) == 2 * 7
    assert sum(w.numel() for w in trained.values()) == sum(2 * sum(w.shape) for w in matrices)


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


def test_only_the_upper_layers_are_corrected(model: Any) -> None:
    add_lora(model, rank=2, alpha=4, upper_layers=1)
    assert {name.split(".")[2] for name in trained_parameters(model)} == {"1"}
