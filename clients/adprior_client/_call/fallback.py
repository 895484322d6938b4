"""Results without a live answer: a stored forecast, no forecast, or base logits."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client._call.call import Call, Lookup, Steps
from adprior_client.encoding import encode_forecast
from adprior_client.results import NO_ANSWER, Forecast, Ranking
from adprior_client.stored.forecast_time import is_from_future
from adprior_client.types import Reason, Source

_log = logging.getLogger("adprior_client")
_SHORTEST_LOOKUP_S: Final = 0.01
"""A lookup may take this long even after the deadline; one in memory takes less."""


def stored_reserve_s(call: Call) -> float:
    """Return the part of a ranking's deadline that is kept for a stored forecast: at most half."""
    if call.stored_user_id is None:
        return 0.0
    reserve_s, timeout_s = call.config.stored_reserve_s, call.deadline.timeout_s
    return reserve_s if reserve_s < timeout_s else timeout_s / 2


def find_stored(call: Call, reason: Reason) -> Steps[Forecast | None]:
    """Look up the user's stored forecast; None if there is none that can be used.

    Args:
        call: A call without a live answer.
        reason: The reason, for the result.
    """
    if call.stored_user_id is None:
        return None
    timeout_s = max(call.deadline.left_s, _SHORTEST_LOOKUP_S)
    found = yield Lookup(call.stored_user_id, timeout_s)
    try:
        if found is None or not _is_usable(found, call):
            return None
        usable: Forecast = replace(
            found, source=Source.STORED, reason=reason, request_id=call.request_id, withheld=()
        )
    except Exception as error:  # noqa: BLE001  a source is the caller's own code
        _log.warning("adprior: a stored forecast is malformed: %s", type(error).__name__)
        return None
    return usable


def trim(stored: Forecast, excluded: Collection[int], k: int | None) -> Forecast:
    """Return a stored forecast without the excluded advertisers, and with ``k`` at most."""
    eligible = [item for item in stored.advertisers if item.advertiser_id not in excluded]
    kept = tuple(eligible[:k])
    left_out = sum(item.probability for item in stored.advertisers)
    left_out -= sum(item.probability for item in kept)
    missing_mass = min(max(stored.missing_mass + left_out, 0.0), 1.0)
    return replace(stored, advertisers=kept, missing_mass=missing_mass)


def rank_by_base_logits(
    advertiser_ids: NDArray[np.int64],
    base_logits: NDArray[np.float64],
    call: Call,
    reason: Reason | None,
    *,
    treatment: bool,
) -> Ranking:
    """Return the ranking that adds no prior: the base logits, to the last bit."""
    return Ranking(
        logits=base_logits,
        advertiser_ids=advertiser_ids,
        base_logits=base_logits,
        adjusted_logits=base_logits,
        log_probs=np.full(advertiser_ids.size, np.nan, dtype=np.float32),
        statuses=np.full(advertiser_ids.size, NO_ANSWER, dtype=np.uint8),
        forecast=None,
        bundle_id="",
        source=Source.NONE,
        age_s=None,
        reason=reason,
        request_id=call.request_id,
        treatment=treatment,
        applied=False,
    )


def _is_usable(found: Any, call: Call) -> bool:
    encode_forecast(found)  # raises if it is malformed
    if not found.advertisers or found.age_s is None or is_from_future(found.made_at):
        return False
    return bool(found.age_s <= call.config.stored_max_age_s)
