"""How an evaluation is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an evaluation is done.

    Attributes:
        quick: Try one setting of each baseline.
        resamples: Of the bootstrap.
        threads: CPU threads, 0 for all.
        validation_only: Judge on half of the validation users, tune on the other half.
        max_cases: At most so many validation cases, and as many test cases; None for all.
        other_log: Take a log that the bundle was not trained on.
        work: Where forecasts are kept until the evaluation is over; None keeps none.
    """

    quick: bool = False
    resamples: int = 1000
    threads: int = 0
    validation_only: bool = False
    max_cases: int | None = None
    other_log: bool = False
    work: Path | None = None
