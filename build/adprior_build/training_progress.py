"""The line that tells how far a training is."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

__all__ = ["ProgressLine"]

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
        self._bar.update(max(0.0, min(1.0, share) - self._bar.n))

    def say(self, line: str) -> None:
        """Print a line above."""
        self._bar.write(line)
