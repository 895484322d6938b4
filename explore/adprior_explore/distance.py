"""A lower bound on the distance between two forecasts.

A forecast p lists its most probable advertisers, and bounds every other one: by the last listed
probability if the list is certified, and by the missing mass. Let q be another forecast. The total
variation distance is the sum of ``max(q - p, 0)`` over all outcomes, and so is the sum of
``max(p - q, 0)``. For an advertiser in one list only, the other probability is taken at its bound.
Each of the two sums over the listed advertisers is then a lower bound on the distance; `distance`
is the larger one. The forecasts may be of two catalogues: an advertiser that one of them lacks has
probability 0 there, and keeps every bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adprior_client import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One advertiser's probability in two forecasts.

    Attributes:
        advertiser_id: The advertiser.
        name: Its name.
        before: Its probability in the first forecast, or a bound.
        after: Its probability in the second one, or a bound.
        is_bound: Whether one of them is an upper bound, since that list lacks the advertiser.
        size: At least this much the probability changed; with its sign.
    """

    advertiser_id: int
    name: str
    before: float
    after: float
    is_bound: bool
    size: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this change."""
        return {
            "advertiser_id": self.advertiser_id,
            "name": self.name,
            "from": self.before,
            "to": self.after,
            "is_bound": self.is_bound,
        }


def bound_of_others(forecast: Forecast) -> float:
    """Return a probability that no advertiser outside the list exceeds."""
    if forecast.exact and forecast.advertisers:
        return min(forecast.missing_mass, forecast.advertisers[-1].probability)
    return forecast.missing_mass


def changes(before: Forecast, after: Forecast) -> list[Change]:
    """Return every listed advertiser's change, the greatest first."""
    return sorted(_changes(before, after), key=lambda change: -abs(change.size))


def distance(before: Forecast, after: Forecast) -> float:
    """Return a lower bound on the total variation distance, in [0, 1]."""
    sizes = [change.size for change in _changes(before, after)]
    risen = sum(size for size in sizes if size > 0)
    fallen = -sum(size for size in sizes if size < 0)
    return min(max(risen, fallen), 1.0)


def _changes(before: Forecast, after: Forecast) -> Iterator[Change]:
    first = {item.advertiser_id: item for item in before.advertisers}
    second = {item.advertiser_id: item for item in after.advertisers}
    most_before, most_after = bound_of_others(before), bound_of_others(after)
    for advertiser_id, item in (second | first).items():
        old, new = first.get(advertiser_id), second.get(advertiser_id)
        low = most_before if old is None else old.probability
        high = most_after if new is None else new.probability
        size = high - low
        if old is None:
            size = max(size, 0.0)
        elif new is None:
            size = min(size, 0.0)
        yield Change(
            advertiser_id=advertiser_id,
            name=item.name,
            before=low,
            after=high,
            is_bound=old is None or new is None,
            size=size,
        )
