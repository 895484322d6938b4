"""LoRA: low-rank corrections of a checkpoint's matrices, trained instead of them.

Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from adprior_build.training.upper_layers import lower_count


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    upper_layers: int | None = None,
) -> Any:
    """Freeze a model and add adapters, in place, to every linear layer of attention and MLP.

    Args:
        model: A causal language model; the caller continues to use it.
        rank: Rank of the corrections.
        alpha: Their scale is alpha / rank.
        dropout: Share of their inputs that is dropped.
        upper_layers: Correct only the last layers, this many; None for all.

    Returns:
        The peft model, whose ``merge_and_unload`` returns the plain model.
    """
    layers = model.get_decoder().layers
    first = 0 if upper_layers is None else lower_count(model, upper_layers)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_linear_layers(layers),
        layers_to_transform=list(range(first, len(layers))),
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        return get_peft_model(model, config)


def _linear_layers(layers: torch.nn.ModuleList) -> list[str]:
    """Return the names, without their place, of the linear layers in a model's blocks."""
    named = layers.named_modules()
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in named if isinstance(module, torch.nn.Linear)}
    )
