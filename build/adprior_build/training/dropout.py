"""Dropout for architectures whose published checkpoints were trained without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adprior_runtime.errors import InvalidInputError

_BLOCK_OUTPUTS = (".o_proj", ".down_proj")
"""What attention and MLP end with in Llama and its relatives."""


@contextmanager
def dropout(model: Any, share: float) -> Iterator[None]:
    """Drop attention weights, and what attention and MLP add to the residual, in training mode.

    Neither the model's weights nor its configuration change; afterwards it is as before.

    Args:
        model: A causal language model.
        share: Of the values; 0 changes nothing.

    Raises:
        InvalidInputError: The architecture has no such places.
    """
    if not share:
        yield
        return
    attention = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "attention_dropout", None), int | float)
    ]
    ends = [module for name, module in model.named_modules() if name.endswith(_BLOCK_OUTPUTS)]
    if not attention or not ends:
        raise InvalidInputError(
            f"--dropout: {type(model).__name__} has no attention_dropout, or no modules named "
            + " and ".join(name[1:] for name in _BLOCK_OUTPUTS)
        )

    def drop(module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(output, share, module.training)

    before = [module.attention_dropout for module in attention]
    hooks = [module.register_forward_hook(drop) for module in ends]
    for module in attention:
        module.attention_dropout = share
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, value in zip(attention, before, strict=True):
            module.attention_dropout = value
