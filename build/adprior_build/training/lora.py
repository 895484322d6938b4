"""LoRA: low-rank corrections of a checkpoint's matrices, trained in their place, merged at the end.

Hu et al. 2021, arXiv 2106.09685. What is saved is a plain checkpoint: building and serving need
neither peft nor the adapters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, get_peft_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The adapters' shape.

    Attributes:
        rank: Of the corrections.
        alpha: They are scaled by alpha / rank.
        dropout: Of their inputs.
        embeddings: Train the token embeddings (and the output layer) as well, in full.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    embeddings: bool = False


def add_lora(model: Any, lora: Lora) -> Any:
    """Freeze a model and add adapters, in place, to every linear layer of attention and MLP.

    Returns:
        The adapters' owner, for `merge_lora`; ``model`` itself goes on to be used.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",  # the output layer is not among them
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        adapted = get_peft_model(model, config)
    if lora.embeddings:
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.requires_grad_(requires_grad=True)
    return adapted


def merge_lora(adapted: Any) -> Any:
    """Add the adapters to the weights they correct; return the plain model."""
    return adapted.merge_and_unload()
