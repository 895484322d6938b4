"""Makes the loss of a training, with the lower layers apart if only the upper ones are trained."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from adprior_build.training.loss import Objective
from adprior_build.training.lower_states import LowerStates
from adprior_build.training.settings import Settings
from adprior_build.training.upper_layers import LayerSplit
from adprior_build.training.windows import Window
from adprior_runtime.text.json_text import to_json

_LOWER_IDENTITY: Final = (
    "from", "trim_vocabulary", "windows", "validation windows", "upper_layers", "precision",
)  # fmt: skip


def make_objective(
    model: Any,
    windows: Sequence[Window],
    args: argparse.Namespace,
    settings: Settings,
    identity: Mapping[str, Any],
    directory: Path,
) -> tuple[Objective, LayerSplit | None]:
    """Return the loss, and the model's layers if only the upper ones run in each step.

    Args:
        model: The model as it is before training.
        windows: All windows of training and validation.
        args: The options of `adprior train`.
        settings: The loop's settings.
        identity: What identifies the training.
        directory: Where the lower layers' output is kept.
    """
    bf16, device = settings.bf16, settings.device
    model.to(device)
    if args.upper_layers is None:
        return Objective(model=model, bf16=bf16, device=device), None
    split = LayerSplit(model, args.upper_layers)
    lower = _open_lower(model, split, windows, settings, identity, directory)
    return Objective(model=model, bf16=bf16, device=device, lower=lower), split


def _open_lower(
    model: Any,
    split: LayerSplit,
    windows: Sequence[Window],
    settings: Settings,
    identity: Mapping[str, Any],
    directory: Path,
) -> LowerStates:
    """Open the file of the lower layers' output; say how large it is."""

    def run(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            return split.run_lower(ids)

    hidden = model.config.get_text_config().hidden_size
    states = LowerStates(directory, windows, run, hidden=hidden, device=settings.device)
    print(
        f"adprior train: the lower {split.lower} layers run once on each of {states.tokens:,} "
        f"tokens; their output takes {states.size_bytes / 1e9:.2f} GB in {directory} until "
        "the training ends",
        flush=True,
    )
    named = to_json({name: identity[name] for name in _LOWER_IDENTITY})
    states.open(hashlib.sha256(named.encode()).hexdigest())
    return states
