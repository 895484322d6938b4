"""The settings of the training loop, and the options of `adprior train` that they come from."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from adprior_runtime.errors import InvalidInputError

DEFAULT_VOCABULARY: Final = 24_000
"""Tokens of a trimmed vocabulary. With 24,000 of Gemma's 262,144, brands that are not in the log or
the catalogue take 9 % more tokens; with 15,000, 15 % more."""
DEFAULT_EPOCHS: Final = 10
LORA_LEARNING_RATE: Final = 5e-4
FULL_LEARNING_RATE: Final = 5e-5
RESUME_FREELY: Final = frozenset(
    {"checkpoint_minutes", "merge", "output", "overwrite", "restart", "threads", "work"}
)
"""Options that may differ when a killed training resumes: they do not change its course."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The loop's settings; `adprior train --help` explains them.

    Attributes:
        epochs: None if only ``minutes`` ends the training.
        minutes: Wall clock of training and validation; None for no limit.
        batch_size: Windows per step.
        learning_rate: Peak learning rate, after the warm-up.
        weight_decay: AdamW's weight decay, applied to matrices only.
        bf16: Compute matrix products in bfloat16; weights stay float32.
        patience: Epochs without a better validation loss after which training stops; 0 for never.
        seed: Seed of the batches' order.
        device: ``cpu`` or ``cuda``.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    epochs: int | None = None
    minutes: float | None = None
    bf16: bool = False
    patience: int = 0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse a training without an end."""
        if self.epochs is None and self.minutes is None:
            raise InvalidInputError("settings: neither epochs nor minutes end the training")

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Take the settings from the command's options."""
        epochs = args.epochs
        if epochs is None and args.minutes is None:
            epochs = DEFAULT_EPOCHS
        usual_rate = FULL_LEARNING_RATE if args.lora_rank is None else LORA_LEARNING_RATE
        other = ("epochs", "bf16", "learning_rate")
        same = [each.name for each in fields(cls) if each.name not in other]
        return cls(
            epochs=epochs,
            bf16=args.precision == "bf16",
            learning_rate=args.learning_rate or usual_rate,
            **{name: getattr(args, name) for name in same},
        )


def work_directory(args: argparse.Namespace) -> Path:
    """Return the directory that keeps the training's state."""
    if args.work is not None:
        return Path(args.work)
    resolved: Path = args.output.resolve()
    return resolved.with_name(resolved.name + ".partial")
