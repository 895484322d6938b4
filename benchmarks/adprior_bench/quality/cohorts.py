"""What forecasts are asked for: the targets of all cases, and the cohorts figures are given for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import NONE, EncodedCase, Int32Array
from adprior_runtime.errors import InvalidInputError

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """The advertisers of all cases' days, one after the other.

    Attributes:
        users: str [cases], whose each case is.
        covered: bool [cases], whether nearly all of the user's events are in the log.
        cases: int64 [targets], which case each target of the catalogue belongs to.
        rows: int32 [targets], the catalogue's rows.
        repeated: bool [targets], whether the user acted on it before the day.
        missed_repeated: int64 [cases], advertisers of the day that the catalogue lacks and the
            user acted on before: no forecast can hit them.
        missed_new: int64 [cases], likewise, never acted on before.
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
        missed = np.array([_missed(case) for case in cases], dtype=np.int64)
        return cls(
            users=np.array([case.user.user_id for case in cases]),
            covered=np.array([case.user.covered for case in cases]),
            cases=np.repeat(np.arange(len(cases)), [len(case.targets) for case in cases]),
            rows=np.concatenate([case.targets for case in cases]),
            repeated=np.concatenate(
                [np.isin(case.targets, case.user.rows[: case.stop]) for case in cases]
            ),
            missed_repeated=missed[:, 0],
            missed_new=missed[:, 1],
        )

    def count(self, chosen: BoolArray) -> Int64Array:
        """Return how many chosen targets each case has: int64 [cases]."""
        return np.bincount(self.cases[chosen], minlength=len(self.users))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """Which cases are looked at, and which of their targets.

    Attributes:
        title: For people.
        targets: bool [targets], those that count.
        counts: int64 [cases], how many count, with those that the catalogue lacks. A case with
            none is not in the cohort.
    """

    title: str
    targets: BoolArray
    counts: Int64Array

    @property
    def cases(self) -> BoolArray:
        """The cases in the cohort: bool [cases]."""
        return self.counts > 0


def cohorts(targets: Targets) -> Mapping[str, Cohort]:
    """Return the cohorts of the protocol: ``all``, ``covered``, ``repeated``, ``new``.

    The last two look at all cases that have such a target, and at those targets alone: recall of
    repeated targets is the share of them that a list holds.
    """
    everything = np.ones(len(targets.rows), dtype=np.bool_)
    missed = targets.missed_repeated + targets.missed_new
    chosen = {
        "all": ("all cases", everything, missed),
        "covered": (
            "users whose log is nearly whole",
            targets.covered[targets.cases],
            missed * targets.covered,
        ),
        "repeated": ("targets in the history", targets.repeated, targets.missed_repeated),
        "new": ("targets new to the user", ~targets.repeated, targets.missed_new),
    }
    return {
        name: Cohort(title=title, targets=kept, counts=targets.count(kept) + off)
        for name, (title, kept, off) in chosen.items()
    }


def _missed(case: EncodedCase) -> tuple[int, int]:
    """Count the day's advertisers that the catalogue lacks, acted on before and not."""
    if not case.missed:
        return 0, 0
    end = np.searchsorted(case.user.days, case.day + 1)
    today = np.unique(case.user.rows[case.stop : end])
    known = np.isin(today[today < NONE], case.user.rows[: case.stop])
    return int(known.sum()), int((~known).sum())
