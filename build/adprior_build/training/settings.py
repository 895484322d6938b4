"""How `adprior train` optimises: what its loop is told."""

from __future__ import annotations

from dataclasses import dataclass

from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The loop's settings.

    Attributes:
        epochs: Passes over the users; None where ``minutes`` alone ends the training.
        minutes: Wall clock that training may take; None for no limit.
        batch_size: Examples in a step.
        learning_rate: Its peak, after the warm-up.
        weight_decay: AdamW's, on matrices only.
        bf16: Compute matrix products in bfloat16; weights stay float32.
        patience: Stop after so many epochs without a better validation loss; 0 never does.
        label_smoothing: Share of a target's probability spread over the vocabulary.
        log_q: Strength of the correction for popular names, see `adprior_build.training.loss`.
        dropout: Of attention weights and of what attention and MLP add.
        seed: Of the order of batches.
        device: ``cpu`` or ``cuda``.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    epochs: int | None = None
    minutes: float | None = None
    bf16: bool = False
    patience: int = 0
    label_smoothing: float = 0.0
    log_q: float = 0.0
    dropout: float = 0.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse a training without an end."""
        if self.epochs is None and self.minutes is None:
            raise InvalidInputError("settings: neither epochs nor minutes end the training")
