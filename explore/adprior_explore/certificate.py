"""The certificate of a forecast, in numbers that can be drawn.

The page asks for one advertiser more than it shows. If Triton certifies these k + 1, no other
advertiser of the catalogue is more probable than the last of them. So the one more is the best that
is not shown, and the k are proved if

    gap = ln p(last shown) - ln p(best not shown)

exceeds the margin of the model's rounding: the rule of `adprior_runtime.search.certificate`. If
Triton does not certify the k + 1, perhaps because the one more ties with the next, the k may still
be proved. So the page asks for k alone too, and shows that forecast with Triton's own certificate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adprior_client import Advertiser, Forecast
from adprior_explore.distance import bound_of_others
from adprior_runtime.search.rounding import provable_below


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The proof of a forecast, and bounds on the advertisers that it does not show.

    Attributes:
        exact: Whether no advertiser that is not shown is more probable than the last shown.
        shown_mass: Sum of the probabilities that are shown.
        missing_mass: Upper bound on the probability of all other advertisers together.
        outside_mass: Lower bound on the probability of texts that name no advertiser.
        last_shown: Probability of the last advertiser shown; None if none is shown.
        best_other: The best advertiser that is not shown, if it is known.
        best_other_bound: No advertiser that is not shown is more probable; None if there is none.
        asked_one_more: Whether one advertiser more than is shown was asked for; no if k is the most
            that the bundle allows.
        gap_nats: See the module; None if the best that is not shown is unknown, or there is none.
        margin_nats: What the gap must exceed.
    """

    exact: bool
    shown_mass: float
    missing_mass: float
    outside_mass: float
    last_shown: float | None
    best_other: Advertiser | None
    best_other_bound: float | None
    asked_one_more: bool
    gap_nats: float | None
    margin_nats: float

    @classmethod
    def of(
        cls,
        found: Forecast,
        shown: int,
        margin_nats: float,
        *,
        asked: int,
        asked_one_more: bool = True,
    ) -> Certificate:
        """Return the certificate of the first ``shown`` advertisers of a forecast.

        Args:
            found: The forecast.
            shown: k.
            margin_nats: The bundle's margin.
            asked: How many advertisers this forecast was asked for: k, or k + 1.
            asked_one_more: Whether k + 1 were asked for, by this forecast or one before.
        """
        listed, others = found.advertisers[:shown], found.advertisers[shown:]
        last, other = (listed[-1] if listed else None), (others[0] if others else None)
        mass = sum(item.probability for item in listed)
        missing = min(found.missing_mass + sum(item.probability for item in others), 1.0)
        gap, exact = None, found.exact
        if found.exact and last is not None and other is not None:
            gap = last.log_prob - other.log_prob
            exact = provable_below(last.log_prob, margin_nats) > other.log_prob
        return cls(
            exact=exact,
            shown_mass=mass,
            missing_mass=missing,
            outside_mass=max(1.0 - mass - missing, 0.0),
            last_shown=None if last is None else last.probability,
            best_other=other,
            best_other_bound=_bound_of_others(found, shown, asked, missing),
            asked_one_more=asked_one_more,
            gap_nats=gap,
            margin_nats=margin_nats,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this certificate."""
        other = None if self.best_other is None else self.best_other.to_json()
        return asdict(self) | {"best_other": other}


def _bound_of_others(found: Forecast, shown: int, asked: int, missing_mass: float) -> float | None:
    """Return a probability that no advertiser after the first ``shown`` exceeds; None if none is.

    A certified forecast with fewer advertisers than it was asked for has all of the catalogue.
    """
    if not found.exact:
        return missing_mass
    if len(found.advertisers) > shown:
        return found.advertisers[shown].probability
    if len(found.advertisers) < asked:
        return None
    return bound_of_others(found)
