"""Validation after an epoch: the loss on the validation users, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from adprior_build.training.batches import cut_into_batches
from adprior_build.training.loss import Objective
from adprior_build.training.progress import Position
from adprior_build.training.settings import Settings
from adprior_build.training.windows import Window
from adprior_runtime.terminal.progress import progress_bar

_SEED_PART: Final = 2
"""Separates these draws from others of the same seed. They mix short and long batches, so that the
first ones predict how long the rest takes."""


class Validation:
    """The validation windows in batches.

    Attributes:
        tokens: Number of tokens of all windows.
    """

    def __init__(self, windows: Sequence[Window], settings: Settings) -> None:
        seed = (settings.seed, _SEED_PART)
        self._batches = cut_into_batches(windows, settings.batch_size, seed)
        self.tokens = sum(len(window.token_ids) for window in windows)

    def __len__(self) -> int:
        return len(self._batches)

    def measure(
        self,
        objective: Objective,
        position: Position,
        *,
        is_over: Callable[[], bool],
        after_batch: Callable[[], None],
    ) -> None:
        """Add the loss of all batches, or of those within the time limit, to the position.

        Args:
            objective: Its model is left in evaluation mode.
            position: Counts the ``validated`` batches; validation continues after them.
            is_over: Tells whether to stop; at least one batch is measured.
            after_batch: Called after each batch.
        """
        objective.model.eval()
        done, waiting = self._batches[: position.validated], self._batches[position.validated :]
        desc = f"validation {position.epoch}"
        bar = progress_bar(total=self.tokens, desc=desc, unit="token", leave=False)
        with torch.no_grad(), bar:
            bar.update(sum(len(window.token_ids) for batch in done for window in batch))
            for windows in waiting:
                if position.validated and is_over():
                    break
                nats, batch = objective.nats(windows)
                position.checked.add(nats, batch)
                position.validated += 1
                bar.set_postfix_str(f"{position.checked.per_name:.2f} nats a name", refresh=False)
                bar.update(batch.tokens)
                after_batch()
