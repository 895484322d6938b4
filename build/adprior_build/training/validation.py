"""Validation after an epoch: the mean loss on the validation users, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from adprior_build.training.batches import Batch, cut_into_batches
from adprior_build.training.examples import Example
from adprior_build.training.loss import Objective
from adprior_build.training.progress import Position
from adprior_build.training.settings import Settings
from adprior_runtime.terminal.progress import track

_SEED_PART: Final = 2
"""Separates these draws from others of the same seed. They mix short and long batches, so that the
first ones predict how long the rest takes."""


class Validation:
    """The validation examples in batches.

    Attributes:
        tokens: Number of tokens of all examples.
    """

    def __init__(self, examples: Sequence[Example], settings: Settings) -> None:
        seed = (settings.seed, _SEED_PART)
        self._batches = cut_into_batches(examples, settings.batch_size, seed)
        self._objective = Objective(bf16=settings.bf16)
        self._device = settings.device
        self.tokens = sum(len(example.token_ids) for example in examples)

    def __len__(self) -> int:
        return len(self._batches)

    def measure(
        self,
        model: Any,
        position: Position,
        *,
        is_over: Callable[[], bool],
        after_batch: Callable[[], None],
    ) -> float:
        """Return the mean loss per target token, over all batches or those within the time limit.

        Args:
            model: Left in evaluation mode.
            position: Counts the ``validated`` batches; validation continues after them.
            is_over: Tells whether to stop; at least one batch is measured.
            after_batch: Called after each batch.
        """
        model.eval()
        waiting = self._batches[position.validated :]
        with torch.no_grad():
            for examples in track(
                waiting, desc=f"validation {position.epoch}", unit="batch", leave=False
            ):
                if position.validated and is_over():
                    break
                batch = Batch.of(examples, device=self._device)
                loss = self._objective.mean_loss(model, batch).item()
                position.validation_loss_sum += loss * batch.targets
                position.validation_targets += batch.targets
                position.validated += 1
                after_batch()
        return position.validation_loss_sum / position.validation_targets
