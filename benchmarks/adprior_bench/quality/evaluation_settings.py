"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RECALL: Final = "recall"
STACKING: Final = "stacking"
RETRIEVAL: Final = "retrieval"
RANKING: Final = "ranking"
ABLATIONS: Final = "ablations"
INTERESTS: Final = "interests"
SECTIONS: Final = (RECALL, STACKING, RETRIEVAL, RANKING, ABLATIONS, INTERESTS)
"""The measures of the report that can be chosen; interests only if the bundle has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        quick: Try only one setting of each baseline.
        resamples: Number of bootstrap resamples.
        threads: CPU threads, 0 for all.
        validation_only: Let half of the validation users stand in for the test users.
        sections: The measures wanted, of `SECTIONS`; recall is always one of them.
        max_cases: Limit of validation cases, and of test cases; None for all.
        ranking_log: Logged requests for the ranking section; None simulates them.
        other_log: Accept a log that the bundle was not trained on.
        work: Directory for intermediate results; None keeps none.
        baselines: Directory for baselines' results, which later runs on the same data use too;
            None keeps them in ``work``.
    """

    quick: bool = False
    resamples: int = 1000
    threads: int = 0
    validation_only: bool = False
    sections: Collection[str] = SECTIONS
    max_cases: int | None = None
    ranking_log: Path | None = None
    other_log: bool = False
    work: Path | None = None
    baselines: Path | None = None

    @property
    def is_in_sample(self) -> bool:
        """Whether the validation users both choose settings and are scored.

        Recall, stacking and interests alone are measured in this way: all of them count. The model
        itself has no setting to choose, and stacks are cross-fitted.
        """
        return self.validation_only and set(self.sections) <= {RECALL, STACKING, INTERESTS}
