from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adprior_build.training.optimizer import trained_parameters
from adprior_build.training.upper_layers import (
    LayerSplit,
    freeze_lower_layers,
)
from adprior_runtime.errors import InvalidInputError
from support.small_models import small_llama, small_qwen3
from unit.build.training.test_checkpoint import FAMILIES, random_model

IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 8, 7, 0, 0, 0]])


def logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_the_upper_layers_continue_what_the_lower_ones_computed(name: str) -> None:
    model = random_model(name, num_hidden_layers=4)
    before = logits(model, input_ids=IDS)
    for upper in (1, 3):
        split = LayerSplit(model, upper)
        with split.only_upper():
            states = split.run_lower(IDS)
            assert torch.equal(logits(model, inputs_embeds=states), before)
        assert torch.equal(logits(model, input_ids=IDS), before)  # the model is as it was


@pytest.mark.parametrize(
    ("make", "output_layer"), [(small_llama, True), (small_qwen3, False)], ids=["apart", "tied"]
)
def test_only_the_upper_layers_are_trained(make: Callable[[], Any], output_layer: bool) -> None:
    model = make()
    freeze_lower_layers(model, 1)
    names = trained_parameters(model)
    layer = {name for name, _ in model.named_parameters() if name.startswith("model.layers.1.")}
    rest = {"model.norm.weight"} | ({"lm_head.weight"} if output_layer else set())
    assert set(names) == layer | rest


def test_more_layers_than_the_model_has_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="--upper-layers 2: the checkpoint has 2 layers"):
        freeze_lower_layers(small_llama(), 2)
