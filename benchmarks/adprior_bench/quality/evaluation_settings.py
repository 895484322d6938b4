"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        quick: Try only one setting of each baseline.
        resamples: Number of bootstrap resamples.
        threads: CPU threads, 0 for all.
        validation_only: Let half of the validation users stand in for the test users.
        max_cases: Limit of validation cases, and of test cases; None for all.
        ranking_log: Logged requests for the ranking section; None simulates them.
        other_log: Accept a log that the bundle was not trained on.
        work: Directory for intermediate results; None keeps none.
    """

    quick: bool = False
    resamples: int = 1000
    threads: int = 0
    validation_only: bool = False
    max_cases: int | None = None
    ranking_log: Path | None = None
    other_log: bool = False
    work: Path | None = None
