"""The targets of all cases, and the cohorts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Int32Array
from adprior_runtime.errors import InvalidInputError

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """The advertisers of all cases, concatenated.

    Attributes:
        users: str [cases], the user of each case.
        covered: bool [cases], whether the log holds nearly all of the user's events.
        cases: int64 [targets], the case of each target.
        rows: int32 [targets], rows of the catalogue.
        repeated: bool [targets], whether the user acted on the advertiser before the day.
        missed_repeated: int64 [cases], the day's advertisers that are not in the catalogue, and
            that the user acted on before.
        missed_new: int64 [cases], the others that are not in the catalogue.
    """

    users: npt.NDArray[np.str_]
    covered: BoolArray
    cases: Int64Array
    rows: Int32Array
    repeated: BoolArray
    missed_repeated: Int64Array
    missed_new: Int64Array

    @classmethod
    def of(cls, cases: Sequence[EncodedCase]) -> Targets:
        """Collect the targets of cases.

        Raises:
            InvalidInputError: There are no cases.
        """
        if not cases:
            raise InvalidInputError("no cases to measure, expected at least one")
        repeated = [np.isin(case.targets, case.user.rows[: case.stop]) for case in cases]
        return cls(
            users=np.array([case.user.user_id for case in cases]),
            covered=np.array([case.user.covered for case in cases]),
            cases=np.repeat(np.arange(len(cases)), [len(case.targets) for case in cases]),
            rows=np.concatenate([case.targets for case in cases]),
            repeated=np.concatenate(repeated),
            missed_repeated=np.array([case.missed_repeated for case in cases]),
            missed_new=np.array([case.missed_new for case in cases]),
        )

    def count(self, chosen: BoolArray) -> Int64Array:
        """Return the number of chosen targets of each case: int64 [cases]."""
        return np.bincount(self.cases[chosen], minlength=len(self.users))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """Some of the targets, and the cases that have any.

    Attributes:
        title: Title in the report.
        targets: bool [targets], those in the cohort.
        counts: int64 [cases], the cohort's targets, including those not in the catalogue.
    """

    title: str
    targets: BoolArray
    counts: Int64Array

    @property
    def cases(self) -> BoolArray:
        """The cases in the cohort: bool [cases]."""
        return self.counts > 0


def cohorts(targets: Targets) -> Mapping[str, Cohort]:
    """Return the cohorts: ``all``, ``covered``, ``repeated`` and ``new``."""
    everything = np.ones(len(targets.rows), dtype=np.bool_)
    missed = targets.missed_repeated + targets.missed_new
    chosen = {
        "all": ("all cases", everything, missed),
        "covered": (
            "users with a nearly complete log",
            targets.covered[targets.cases],
            missed * targets.covered,
        ),
        "repeated": (
            "advertisers in the user's history",
            targets.repeated,
            targets.missed_repeated,
        ),
        "new": ("advertisers new to the user", ~targets.repeated, targets.missed_new),
    }
    return {
        name: Cohort(title=title, targets=kept, counts=targets.count(kept) + outside)
        for name, (title, kept, outside) in chosen.items()
    }
