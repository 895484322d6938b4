"""The progress of a training: its position, the share that is done, and the progress line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tqdm import tqdm

from adprior_build.training.loss import Tally
from adprior_build.training.loss_curve import LossCurve
from adprior_build.training.settings import Settings
from adprior_runtime.terminal.progress import pace
from adprior_runtime.terminal.tables import format_sparkline

_LARGEST_VALIDATION_SHARE: Final = 1 / 3
_FEWEST_POINTS: Final = 4
_LINE: Final = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass(slots=True, kw_only=True)
class Position:
    """The position of a training. The kept state stores it as JSON.

    Attributes:
        epoch: Number of finished epochs.
        step: Finished steps of the current epoch.
        steps: Finished steps of all epochs.
        trained: The loss of the current epoch's training so far.
        curve: The course of the training loss, in all epochs.
        tokens: Tokens trained on so far, with prompts, without padding.
        seconds: Wall clock of training and validation, in all runs.
        last_validation_seconds: Wall clock that the last validation took, or is expected to take.
        validation_seconds: Wall clock of all validations.
        validated: Finished batches of the current validation.
        checked: The loss of these batches.
        rows: One per epoch: ``epoch``, ``loss`` and ``validation_loss`` in nats a name,
            ``validation_new`` and ``validation_seen`` for names that are new to their user and for
            the others, ``validation_interest`` in nats an interest, ``tokens`` so far; ``share`` if
            the time limit cut the epoch short, and ``checked``, a share, if it cut the validation
            short.
        best_epoch: The epoch with the lowest validation loss.
        best_loss: That loss.
        resumed: How many times the training resumed from a kept state.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    trained: Tally = field(default_factory=Tally)
    curve: LossCurve = field(default_factory=LossCurve)
    tokens: int = 0
    seconds: float = 0.0
    last_validation_seconds: float = 0.0
    validation_seconds: float = 0.0
    validated: int = 0
    checked: Tally = field(default_factory=Tally)
    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None
    resumed: int = 0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Position:
        """Read what ``asdict`` made of a position."""
        tallies = {name: Tally(**document[name]) for name in ("trained", "checked")}
        curve = LossCurve.of(document.get("curve", {}))
        return cls(**{**document, **tallies, "curve": curve})


class Schedule:
    """Tells how much of a training is done, by steps and by time, and when it ends.

    Args:
        settings: Only epochs, minutes and patience are used.
        position: The training's; only read, except for `expect_validation`.
        steps_per_epoch: An estimate.
        clock: Returns seconds.
    """

    def __init__(
        self,
        settings: Settings,
        position: Position,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._position, self._clock = settings, position, clock
        self._limit_s = math.inf if settings.minutes is None else 60 * settings.minutes
        self._total_steps = steps_per_epoch * (settings.epochs or 0)
        self._began = clock() - position.seconds
        self._time_was_over = False

    def seconds(self) -> float:
        """Return the wall clock used in all runs."""
        return self._clock() - self._began

    def share_over(self, *, after_step: bool = False) -> float:
        """Return the share that is done, by steps or by time, whichever is larger.

        Args:
            after_step: Count the current step as done.
        """
        return min(1.0, max(self._step_share(after_step), self._time_share()))

    def share_shown(self) -> float:
        """Return the share that is done, with validation counted as part of the time."""
        return min(1.0, max(self._step_share(), self.seconds() / self._limit_s))

    def expect_validation(self, seconds: float) -> None:
        """Reserve time for the first validation, at most a third of the limit."""
        most = _LARGEST_VALIDATION_SHARE * self._limit_s
        self._position.last_validation_seconds = min(seconds, most)

    def time_is_over(self) -> bool:
        """Tell whether only the time for a last validation is left."""
        return self._time_share() >= 1

    def validation_is_over(self) -> bool:
        """Tell whether the time ran out during the first validation, whose estimate may be low.

        Later validations are never cut short, because their losses are compared.
        """
        return not self._position.rows and self.seconds() >= self._limit_s

    def is_over(self) -> bool:
        """Tell whether the training ends before another epoch."""
        position, settings = self._position, self._settings
        if position.step or not position.rows:  # an epoch that began always gets its validation
            return False
        if settings.epochs is not None and position.epoch >= settings.epochs:
            return True
        waited = position.epoch - 1 - (position.best_epoch or 0)
        return self.time_is_over() or 0 < settings.patience <= waited

    def _step_share(self, more: int = 0) -> float:
        steps = self._position.steps + more
        return steps / self._total_steps if self._total_steps else 0.0

    def _time_share(self) -> float:
        available_s = self._limit_s - self._position.last_validation_seconds
        share = self.seconds() / available_s if available_s > 0 else 1.0
        self._time_was_over |= share >= 1  # final, even if the validation takes less than expected
        return 1.0 if self._time_was_over else share


class ProgressLine:
    """Share done, time left, epoch, loss and speed; a context manager."""

    def __init__(self, share: float) -> None:
        """Begin at ``share``; the time left is estimated from what follows."""
        self._bar = tqdm(
            total=1.0,
            initial=share,
            desc="adprior train",
            bar_format=_LINE,
            dynamic_ncols=True,
            **pace(),
        )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def move(self, share: float, *, epoch: int, nats: float, tokens: float, names: float) -> None:
        """Show the share done, nats a name, and tokens and names per second."""
        self._bar.set_postfix_str(
            f"epoch {epoch}, {nats:.2f} nats a name, {tokens:,.0f} tokens/s, {names:,.0f} names/s",
            refresh=False,
        )
        self.advance(share)

    def advance(self, share: float) -> None:
        """Show the share done."""
        self._bar.update(max(0.0, min(1.0, share) - self._bar.n))

    def say(self, line: str) -> None:
        """Print a line above the progress line."""
        self._bar.write(line)


def describe_epoch(row: Mapping[str, float], *, is_best: bool) -> str:
    """Return a line about an epoch, from its row of `Position.rows`."""
    part = f", {row['share']:.0%} of it (the time was over)" if "share" in row else ""
    users = f" (of {row['checked']:.0%} of the users)" if "checked" in row else ""
    kinds = [f"{row[f'validation_{kind}']:.3f} {kind}" for kind in ("new", "seen")
             if f"validation_{kind}" in row]  # fmt: skip
    interest = row.get("validation_interest")
    return (
        f"epoch {row['epoch']}{part}: {row['loss']:.3f} nats a name, validation "
        f"{row['validation_loss']:.3f}"
        + (f" ({', '.join(kinds)})" if kinds else "")
        + ("" if interest is None else f", {interest:.3f} nats an interest")
        + users
        + (" (best)" if is_best else "")
    )


def draw_losses(position: Position) -> str | None:
    """Return a line with the course of the losses; None if there are too few to draw."""
    losses = position.curve.losses()
    if len(losses) < _FEWEST_POINTS:
        return None
    line = f"loss {losses[0]:.2f} {format_sparkline(losses)} {losses[-1]:.2f} nats a name"
    checks = [row["validation_loss"] for row in position.rows]
    if len(checks) > 1:
        line += f" · validation {checks[0]:.2f} {format_sparkline(checks)} {checks[-1]:.2f}"
    return line


def describe_time(position: Position, wall_s: float) -> str:
    """Return where the time of a finished training went; ``wall_s`` is the whole run's."""
    training_s = position.seconds - position.validation_seconds
    parts = f"{_span(training_s)} of training, {_span(position.validation_seconds)} of validation"
    if position.resumed:
        return f"{parts}, in {position.resumed + 1} runs"
    return f"{parts}, {_span(wall_s - position.seconds)} of reading and writing"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 120 else f"{max(0.0, seconds):.0f} s"
