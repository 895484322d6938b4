from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_build.training.dropout import dropout
from adprior_runtime.errors import InvalidInputError


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=20,
            initializer_range=0.5,
        )
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(12)[None]).logits
    return found


def test_dropout_acts_only_in_training_mode_and_leaves_the_model_unchanged(model: Any) -> None:
    plain = logits(model.eval())
    with dropout(model, 0.5):
        assert torch.equal(logits(model.eval()), plain)
        model.train()
        assert not torch.equal(logits(model), logits(model))
    assert torch.equal(logits(model), logits(model))
    assert torch.allclose(logits(model), plain)
    assert model.config.attention_dropout == 0


def test_a_share_of_0_drops_nothing(model: Any) -> None:
    with dropout(model.train(), 0.0):
        assert torch.equal(logits(model), logits(model))


def test_attention_weights_and_block_outputs_are_dropped(model: Any) -> None:
    seen: list[torch.Tensor] = []
    layer = model.model.layers[0]
    with dropout(model.train(), 0.25):
        assert layer.self_attn.attention_dropout == 0.25
        for end in (layer.self_attn.o_proj, layer.mlp.down_proj):
            end.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for _ in range(60):
            logits(model)
    assert layer.self_attn.attention_dropout == 0
    for place in (0, 1):
        zeros = (torch.stack(seen[place::2]) == 0).float().mean().item()
        assert zeros == pytest.approx(0.25, abs=0.03)


def test_an_architecture_without_these_layers_is_refused() -> None:
    with (
        pytest.raises(InvalidInputError, match="Linear has no attention_dropout"),
        dropout(torch.nn.Linear(2, 2), 0.1),
    ):
        pass


def test_dropout_ends_after_a_failure(model: Any) -> None:
    with pytest.raises(KeyboardInterrupt), dropout(model, 0.5):
        raise KeyboardInterrupt
    model.train()
    assert torch.equal(logits(model), logits(model))
