"""Forecasts with chosen probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adprior_client import Advertiser, Forecast


def listed(
    probabilities: Mapping[int, float], *, missing_mass: float = 0.1, exact: bool = True
) -> Forecast:
    """Return a forecast of advertisers by id; it lists the most probable first."""
    best_first = sorted(probabilities.items(), key=lambda item: -item[1])
    return Forecast(
        advertisers=tuple(
            Advertiser(advertiser_id=place, name=f"name {place}", log_prob=math.log(value))
            for place, value in best_first
        ),
        exact=exact,
        missing_mass=missing_mass,
        bundle_id="bundle-1",
    )
