"""Dropout for architectures whose published checkpoints were trained without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from adprior_runtime.errors import InvalidInputError

_BLOCK_OUTPUTS: Final = (".o_proj", ".down_proj")
"""The last layers of attention and MLP in Llama and related architectures."""


@contextmanager
def dropout(model: Any, share: float) -> Iterator[None]:
    """Drop, in training mode, attention weights and the outputs of attention and MLP.

    Neither the model's weights nor its configuration change; afterwards it is as before.

    Args:
        model: A causal language model.
        share: Share of the values to drop; 0 changes nothing.

    Raises:
        InvalidInputError: The architecture lacks these layers.
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
