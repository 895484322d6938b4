"""Whose advertisers fill the reserved places of retrieval: validation chooses, the test judges.

For each budget, the validation users choose a quota for every way to fill the reserved places, and
then the best way with the model's forecast and the best one without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adprior_bench.quality.intervals import Draws, Estimate, UserBootstrap, estimate
from adprior_bench.quality.retrieval.quotas import QuotaResult
from adprior_bench.report.schema import Table
from adprior_bench.report.tables import COUNT, make_table, percent, points


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filled:
    """The result of one way to fill the reserved places, on the validation and the test cases."""

    title: str
    validation: QuotaResult
    test: QuotaResult

    def quota(self, budget: int) -> float:
        """Return the quota that the validation cases choose."""
        return self.validation.best_quota(budget)

    def chosen(self, budget: int, measure: str = "advertisers") -> Any:
        """Return each test case's value at that quota."""
        return self.test.at(budget, self.quota(budget), measure)

    def on_validation(self, budget: int) -> float:
        """Return the share of advertisers that the validation cases find at that quota."""
        return self.validation.mean(budget, self.quota(budget))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """The choice at one budget, in shares of the day's advertisers found.

    Attributes:
        ours: The best way to fill the places with the model's forecast, on validation cases.
        quota: Its quota.
        rival: The best way without the model's forecast, on validation cases.
        on_validation: Ours minus the rival on the validation cases, each at its own quota.
        on_test: The same on the test cases.
        gain: Ours minus no reserved places, on the test cases.
        over_control: Ours minus places filled without a forecast, on the test cases.
    """

    ours: str
    quota: float
    rival: str
    on_validation: float
    on_test: Estimate
    gain: Estimate
    over_control: Estimate

    @property
    def is_chosen(self) -> bool:
        """Whether validation users prefer the model's places, and give it any."""
        return self.quota > 0 and self.on_validation > 0

    @property
    def is_confirmed(self) -> bool:
        """Whether the test agrees: more than the rival, the control and no places."""
        return self.is_chosen and min(self.on_test.low, self.gain.low, self.over_control.low) > 0


def choose_places(
    ours: Sequence[Filled], rivals: Sequence[Filled], control: Filled, bootstrap: UserBootstrap
) -> dict[int, Places]:
    """Return the choice at each budget; ``control`` fills the places without a forecast."""

    def over(mine: Filled, other: Filled, budget: int) -> Estimate:
        return estimate(case_mean(bootstrap, mine.chosen(budget) - other.chosen(budget)))

    found: dict[int, Places] = {}
    for budget in control.test.settings.budgets:
        mine, rival = (
            max(group, key=lambda each, at=budget: each.on_validation(at))  # type: ignore[misc]
            for group in (ours, rivals)
        )
        quota = mine.quota(budget)
        found[budget] = Places(
            ours=mine.title,
            quota=quota,
            rival=rival.title,
            on_validation=mine.on_validation(budget) - rival.on_validation(budget),
            on_test=over(mine, rival, budget),
            gain=estimate(case_mean(bootstrap, mine.test.gain(budget, quota))),
            over_control=over(mine, control, budget),
        )
    return found


def places_table(found: Mapping[int, Places]) -> Table:
    """Return the choice at each budget."""
    return make_table(
        "Whose advertisers fill the reserved places: the choice of validation users, and the test",
        [
            {
                "budget": budget,
                "best with the model": each.ours,
                "quota": each.quota,
                "best without it": each.rival,
                "difference, validation": each.on_validation,
                "difference, test": each.on_test,
                "gain over no places, test": each.gain,
                "validation chooses the model": "yes" if each.is_chosen else "no",
                "the test agrees": "yes" if each.is_confirmed else "no",
            }
            for budget, each in found.items()
        ],
        {
            "budget": COUNT,
            "quota": percent(0),
            "difference, validation": points(2),
            "difference, test": points(2),
            "gain over no places, test": points(2),
        },
        note="Differences are of the share of the day's advertisers found, each way at the quota "
        "that validation users chose for it. The test agrees if the interval is above 0, and those "
        "of the gains over no places and over the same places filled without a forecast are too.",
    )


def case_mean(bootstrap: UserBootstrap, values: Any) -> Draws:
    """Return the mean over the cases that have a value."""
    known = np.isfinite(values)
    return bootstrap.mean(np.where(known, values, 0.0), known)
