"""The line that tells how far a training is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from adprior_build.training.position import Position
from adprior_runtime.terminal.progress import pace

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class ProgressLine:
    """Share done, time left, epoch, loss and tokens a second; a context manager."""

    def __init__(self, share: float) -> None:
        """Begin where ``share`` of the training is over: time left goes by what follows."""
        self._bar = tqdm(
            total=1.0,
            initial=share,
            desc="adprior train",
            bar_format=_FORMAT,
            dynamic_ncols=True,
            **pace(),
        )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def move(self, share: float, *, epoch: int, loss: float, rate: float) -> None:
        """Tell that ``share`` is over, the last batch's loss, and tokens a second."""
        self._bar.set_postfix_str(
            f"epoch {epoch}, loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False
        )
        self.advance(share)

    def advance(self, share: float) -> None:
        """Tell that ``share`` is over."""
        self._bar.update(max(0.0, min(1.0, share) - self._bar.n))

    def say(self, line: str) -> None:
        """Print a line above."""
        self._bar.write(line)


def describe_epoch(row: Mapping[str, float], *, is_best: bool) -> str:
    """Return a line on an epoch.

    Args:
        row: As `adprior_build.training.position.Position` has it.
        is_best: Whether there were epochs before, none of a lower validation loss.
    """
    part = f", {row['share']:.0%} of it (the time was over)" if "share" in row else ""
    some = f" (of {row['checked']:.0%} of the users)" if "checked" in row else ""
    return (
        f"epoch {row['epoch']}{part}: loss {row['loss']:.4f}, "
        f"validation {row['validation_loss']:.4f}" + some + (" (best)" if is_best else "")
    )


def describe_time(position: Position, wall_s: float) -> str:
    """Return where the time went.

    Args:
        position: Of a training that is over.
        wall_s: What this run took in all.
    """
    training_s = position.seconds - position.checks_seconds
    told = f"{_span(training_s)} of training, {_span(position.checks_seconds)} of validation"
    if position.resumed:
        return f"{told}, in {position.resumed + 1} runs"
    return f"{told}, {_span(wall_s - position.seconds)} of reading and writing"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 120 else f"{max(0.0, seconds):.0f} s"
