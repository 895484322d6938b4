"""The look at the validation users after an epoch: it shows a bar, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from adprior_build.training.batches import cut_into_batches
from adprior_build.training.examples import Example
from adprior_build.training.loss import Batch, Objective
from adprior_build.training.position import Position
from adprior_build.training.settings import Settings
from adprior_runtime.terminal.progress import track

_ORDER_OF_CHECKS: Final = 2
"""Lengths come mixed: the first batches tell how long the others take."""


class Validation:
    """The validation examples in batches.

    Attributes:
        tokens: Of all examples.
    """

    def __init__(self, examples: Sequence[Example], settings: Settings) -> None:
        seed = (settings.seed, _ORDER_OF_CHECKS)
        self._batches = cut_into_batches(examples, settings.batch_size, seed)
        self._objective = Objective(bf16=settings.bf16)
        self._device = settings.device
        self.tokens = sum(len(example.token_ids) for example in examples)

    def __len__(self) -> int:
        return len(self._batches)

    def look(
        self,
        model: Any,
        position: Position,
        *,
        is_over: Callable[[], bool],
        keep: Callable[[], None],
    ) -> float:
        """Return the mean loss of a target token, over all batches or those the time allows.

        Args:
            model: Left in evaluation.
            position: Goes on from its ``checked`` batches, and counts them.
            is_over: Whether no further batch shall follow; one is looked at in any case.
            keep: Called after each batch.
        """
        model.eval()
        waiting = self._batches[position.checked :]
        with torch.no_grad():
            for chosen in track(
                waiting, desc=f"validation {position.epoch}", unit="batch", leave=False
            ):
                if position.checked and is_over():
                    break
                batch = Batch.of(chosen, device=self._device)
                loss = self._objective.mean_loss(model, batch).item()
                position.check_loss_sum += loss * batch.targets
                position.check_targets += batch.targets
                position.checked += 1
                keep()
        return position.check_loss_sum / position.check_targets
