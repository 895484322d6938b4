"""LoRA: low-rank corrections of a checkpoint's matrices, trained instead of them.

Hu et al. 2021, arXiv 2106.09685. At the end they are merged into the weights, so building and
serving need neither peft nor the adapters.
"""

from __future__ import annotations

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model


def add_lora(
    model: Any, *, rank: int, alpha: float, dropout: float = 0.0, embeddings: bool = False
) -> Any:
    """Freeze a model and add adapters, in place, to every linear layer of attention and MLP.

    Args:
        model: A causal language model; the caller continues to use it.
        rank: Rank of the corrections.
        alpha: Their scale is alpha / rank.
        dropout: Share of their inputs that is dropped.
        embeddings: Also train the token embeddings and the output layer, in full.

    Returns:
        The peft model, whose ``merge_and_unload`` returns the plain model.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",  # without the output layer
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        adapted = get_peft_model(model, config)
    if embeddings:
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.requires_grad_(requires_grad=True)
    return adapted
