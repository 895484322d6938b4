"""Where a training stands, and how much of it is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from adprior_build.training.settings import Settings

_MOST_OF_TIME_FOR_A_CHECK: Final = 1 / 3


@dataclass(slots=True, kw_only=True)
class Position:
    """Where a training stands, and in the end what it was; JSON holds all of it.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the one after.
        steps: Steps done in all.
        loss_sum, target_tokens: Of this epoch's training loss.
        tokens: Tokens trained on in all, prompts included, padding not.
        seconds: Wall clock used, validation included, in all runs.
        check_seconds: Wall clock that the last look at the validation users took.
        checks_seconds: Wall clock that all of them took.
        checked: Batches of the look under way that are done.
        check_loss_sum, check_targets: Of these batches.
        rows: One an epoch: ``epoch``, ``loss``, ``validation_loss`` (nats per token of a name),
            ``tokens`` so far; ``share`` where the time ended it, and ``checked`` where the time
            ended its look.
        best_epoch: The one of least validation loss.
        best_loss: That loss.
        resumed: How often the training went on from a kept state.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    target_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    check_seconds: float = 0.0
    checks_seconds: float = 0.0
    checked: int = 0
    check_loss_sum: float = 0.0
    check_targets: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None
    resumed: int = 0


class Schedule:
    """How much of a training is over, by steps and by time, and whether all of it is.

    Args:
        settings: With its epochs, minutes and patience.
        position: Of the training; read, and its ``seconds`` counted on from.
        steps_per_epoch: About how many there are.
        clock: In seconds.
    """

    def __init__(
        self,
        settings: Settings,
        position: Position,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._position, self._clock = settings, position, clock
        self._total_steps = steps_per_epoch * (settings.epochs or 0)
        self._began = clock() - position.seconds
        self._time_was_over = False

    def seconds(self) -> float:
        """Return the wall clock used, in all runs."""
        return self._clock() - self._began

    def share_over(self, *, after_step: bool = False) -> float:
        """Return the share that is over, by steps or by time, whichever is more.

        Args:
            after_step: Count the step under way as done.
        """
        return min(1.0, max(self._step_share(after_step), self._time_share()))

    def share_shown(self) -> float:
        """Return the share that is over, looks at the validation users included."""
        minutes = self._settings.minutes
        by_time = self.seconds() / (60 * minutes) if minutes else 0.0
        return min(1.0, max(self._step_share(), by_time))

    def expect_check(self, seconds: float) -> None:
        """Keep so long free for the first look, but no more than its share of the time."""
        most = math.inf if self._settings.minutes is None else 60 * self._settings.minutes
        self._position.check_seconds = min(seconds, _MOST_OF_TIME_FOR_A_CHECK * most)

    def time_is_over(self) -> bool:
        """Whether the time is spent but for a last look at the validation users."""
        return self._time_share() >= 1

    def check_is_over(self) -> bool:
        """Whether the time is spent amid the first look, which may take longer than was thought.

        Later ones are whole, as long as the one before took: their losses are compared.
        """
        minutes = self._settings.minutes
        return minutes is not None and not self._position.rows and self.seconds() >= 60 * minutes

    def is_over(self) -> bool:
        """Whether no epoch shall follow."""
        position, settings = self._position, self._settings
        if position.step or not position.rows:  # an epoch once begun is ended, if only shortened
            return False
        if settings.epochs is not None and position.epoch >= settings.epochs:
            return True
        waited = position.epoch - 1 - (position.best_epoch or 0)
        return self.time_is_over() or 0 < settings.patience <= waited

    def _step_share(self, more: int = 0) -> float:
        steps = self._position.steps + more
        return steps / self._total_steps if self._total_steps else 0.0

    def _time_share(self) -> float:
        if self._settings.minutes is None:
            return 0.0
        room = 60 * self._settings.minutes - self._position.check_seconds
        share = self.seconds() / room if room > 0 else 1.0
        self._time_was_over |= share >= 1  # and stays so, should that look take less than thought
        return 1.0 if self._time_was_over else share
