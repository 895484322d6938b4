"""The certificate of a forecast, in numbers that can be drawn.

The page asks for one advertiser more than it shows. If Triton certifies these k + 1, no other
advertiser of the catalogue is more probable than the last of them. So the one more is the best that
is not shown, and the k are proved if

    gap = ln p(last shown) - ln p(best not shown)

exceeds the margin of the model's rounding. This is the rule of
`adprior_runtime.search.certificate`: a forecast of k alone has the same certificate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adprior_client import Advertiser, Forecast
from adprior_runtime.search.rounding import provable_below


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What is known about the advertisers that a forecast does not show.

    Attributes:
        exact: Whether no advertiser that is not shown is more probable than the last shown.
        shown_mass: Sum of the probabilities that are shown.
        missing_mass: Upper bound on the probability of all other advertisers together.
        outside_mass: Lower bound on the probability of texts that name no advertiser.
        last_shown: Probability of the last advertiser shown; None if none is shown.
        best_other: The best advertiser that is not shown, if it is known.
        best_other_bound: No advertiser that is not shown is more probable; None if there is none.
        gap_nats: See the module; None if Triton does not certify the k + 1, or there is no other.
        margin_nats: What the gap must exceed.
    """

    exact: bool
    shown_mass: float
    missing_mass: float
    outside_mass: float
    last_shown: float | None
    best_other: Advertiser | None
    best_other_bound: float | None
    gap_nats: float | None
    margin_nats: float

    @classmethod
    def of(cls, found: Forecast, shown: int, margin_nats: float) -> Certificate:
        """Return the certificate of the first ``shown`` advertisers of a forecast.

        Args:
            found: A forecast of one advertiser more, where the catalogue has one.
            shown: k.
            margin_nats: The bundle's margin.
        """
        listed, others = found.advertisers[:shown], found.advertisers[shown:]
        last, other = (listed[-1] if listed else None), (others[0] if others else None)
        mass = sum(item.probability for item in listed)
        missing = min(found.missing_mass + sum(item.probability for item in others), 1.0)
        gap, exact = None, found.exact
        if found.exact and last is not None and other is not None:
            gap = last.log_prob - other.log_prob
            exact = provable_below(last.log_prob, margin_nats) > other.log_prob
        bound: float | None = missing
        if found.exact:
            bound = None if other is None else other.probability
        return cls(
            exact=exact,
            shown_mass=mass,
            missing_mass=missing,
            outside_mass=max(1.0 - mass - missing, 0.0),
            last_shown=None if last is None else last.probability,
            best_other=other,
            best_other_bound=bound,
            gap_nats=gap,
            margin_nats=margin_nats,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this certificate."""
        other = None if self.best_other is None else self.best_other.to_json()
        return asdict(self) | {"best_other": other}
