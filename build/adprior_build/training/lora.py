"""LoRA: low-rank corrections of a checkpoint's matrices, trained instead of them.

Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)

from adprior_build.checkpoints.adapter import Lora
from adprior_build.training.upper_layers import lower_count
from adprior_runtime.errors import InvalidInputError


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


def load_corrections(adapted: Any, corrections: Mapping[str, NDArray[np.float32]]) -> None:
    """Load an adapter's matrices, under PEFT's names, into a peft model.

    Raises:
        InvalidInputError: The model has no such matrices.
    """
    if not corrections:
        return
    tensors = {name: torch.from_numpy(np.array(v, np.float32)) for name, v in corrections.items()}
    unknown = tensors.keys() - get_peft_model_state_dict(adapted).keys()
    if unknown:
        raise InvalidInputError(
            f"--from: the adapter's {min(unknown)} is none of the corrections that are trained; "
            "train with the --upper-layers that it was trained with, or without"
        )
    set_peft_model_state_dict(adapted, tensors)


def read_corrections(adapted: Any) -> tuple[Lora, dict[str, NDArray[np.float32]]]:
    """Return a peft model's settings and matrices, under PEFT's names."""
    config = adapted.peft_config["default"]
    settings = Lora(
        rank=config.r, alpha=config.lora_alpha, target_modules=sorted(config.target_modules)
    )
    tensors = get_peft_model_state_dict(adapted)
    return settings, {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def _linear_layers(layers: torch.nn.ModuleList) -> list[str]:
    """Return the names, without their place, of the linear layers in a model's blocks."""
    named = layers.named_modules()
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in named if isinstance(module, torch.nn.Linear)}
    )
