"""A forecast as a targeting filter: blend two lists of one retriever under a quota.

Ask the retriever twice, once as usual and once with the forecast's advertisers as its targeting
filter. `blend_retrieved` gives the filtered list a share of the budget and no more, which limits
the cost of a wrong forecast. `advertiser_concentration` shows when the quota is too large. Nothing
here calls a server; without a forecast the retriever's own list comes back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np

from adprior_client.encoding import encode_ids
from adprior_client.errors import InvalidArgumentError
from adprior_client.results import Forecast
from adprior_client.types import Ids

ItemId: TypeAlias = str | int

_SLACK: Final = 1e-9
"""0.29 of 100 must be 29 places, although the product of the two floats is below 29."""


class ItemSource(StrEnum):
    """The kind of place that an item takes: an ordinary one, or one reserved for the forecast."""

    CONVENTIONAL = "conventional"
    FORECAST = "forecast"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedItem:
    """One item of a retriever's list; ``score`` is the retriever's own and is only passed on."""

    item_id: ItemId
    advertiser_id: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendedItem(RetrievedItem):
    """One item of the blended list, with its kind of place."""

    source: ItemSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Concentration:
    """The concentration of a list on few advertisers; all 0 for an empty list.

    Attributes:
        herfindahl: The Herfindahl-Hirschman index, the sum of the squares of the advertisers'
            shares of the list: 1 for a single advertiser, 1 / n for n equal ones.
        top_share: The largest share.
        advertisers: Number of advertisers.
    """

    herfindahl: float
    top_share: float
    advertisers: int


def blend_retrieved(
    conventional: Sequence[RetrievedItem],
    filtered: Sequence[RetrievedItem],
    forecast: Forecast | Ids,
    *,
    budget: int,
    quota: float,
    per_advertiser: int | None = None,
) -> tuple[BlendedItem, ...]:
    """Blend a retriever's list with its list filtered to the forecast's advertisers.

    ``floor(quota * budget)`` places are reserved for ``filtered``. An item that is already in the
    conventional part takes none of them. Conventional items take the other places, and reserved
    ones that ``filtered`` cannot fill. If the conventional list is too short, ``filtered`` may
    exceed its quota. Each list keeps its order. Items of ``filtered`` are spread evenly, so every
    prefix of the result has about the same shares. ``budget`` items of each list are always enough
    (with ``per_advertiser``, ``budget`` items of each advertiser in ``filtered``).

    Args:
        conventional: The retriever's list, best first.
        filtered: Its list with the forecast as its targeting filter, best first. Items of other
            advertisers are ignored.
        forecast: The forecast, or its advertisers' ids. If there are none (no answer, shadow mode,
            a control user) the conventional list is returned.
        budget: Items wanted.
        quota: Share of the budget to reserve, from 0 (exactly the first ``budget`` conventional
            items) to 1.
        per_advertiser: Add an item of ``filtered`` only if the list has fewer than this many items
            of its advertiser; 1 adds only new advertisers. None for no limit. Conventional items
            are never dropped for this.

    Returns:
        ``budget`` items, or all items if there are fewer; each item once.

    Raises:
        InvalidArgumentError: An argument is wrong, or a list has an item twice.
    """
    _check_integer(budget, "budget")
    if per_advertiser is not None:
        _check_integer(per_advertiser, "per_advertiser")
    reserved = _reserved_places(budget, quota)
    _check_list(conventional, "conventional")
    _check_list(filtered, "filtered")
    wanted = _wanted_advertisers(forecast)
    if quota == 0 or not wanted:
        return tuple(_blended(item, ItemSource.CONVENTIONAL) for item in conventional[:budget])
    kept = [item for item in filtered if item.advertiser_id in wanted]
    own = list(conventional[: budget - reserved])
    extra = _not_in(kept, own, per_advertiser)[: budget - len(own)]
    taken = {item.item_id for item in extra}
    rest = [item for item in conventional[budget - reserved :] if item.item_id not in taken]
    own += rest[: budget - len(own) - len(extra)]
    return _spread(own, extra)


def advertiser_concentration(advertiser_ids: Ids) -> Concentration:
    """Return the concentration of a list on few advertisers.

    Args:
        advertiser_ids: The advertiser of each item: ``[item.advertiser_id for item in blended]``.

    Raises:
        InvalidArgumentError: An id is not an integer.
    """
    ids = encode_ids(advertiser_ids, "advertiser_ids")
    if ids.size == 0:
        return Concentration(herfindahl=0.0, top_share=0.0, advertisers=0)
    shares = np.unique(ids, return_counts=True)[1] / ids.size
    return Concentration(
        herfindahl=float(shares @ shares),
        top_share=float(shares.max()),
        advertisers=len(shares),
    )


def _reserved_places(budget: int, quota: float) -> int:
    if isinstance(quota, bool) or not isinstance(quota, int | float | np.integer | np.floating):
        raise InvalidArgumentError(f"quota: found {type(quota).__name__}, expected a number")
    if not 0.0 <= quota <= 1.0:
        raise InvalidArgumentError(f"quota: found {quota}, expected 0 to 1")
    return math.floor(quota * budget + _SLACK)


def _check_integer(value: int, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidArgumentError(f"{field}: found {type(value).__name__}, expected an integer")
    if value < 1:
        raise InvalidArgumentError(f"{field}: found {value}, expected at least 1")


def _check_list(items: Sequence[RetrievedItem], field: str) -> None:
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise InvalidArgumentError(
            f"{field}: found {type(items).__name__}, expected a sequence of RetrievedItem"
        )
    seen: set[ItemId] = set()
    for place, item in enumerate(items):
        if not isinstance(item, RetrievedItem):
            raise InvalidArgumentError(
                f"{field}[{place}]: found {type(item).__name__}, expected a RetrievedItem"
            )
        if not math.isfinite(item.score):
            raise InvalidArgumentError(
                f"{field}[{place}].score: found {item.score}, expected a finite number"
            )
        if item.item_id in seen:
            raise InvalidArgumentError(f"{field}[{place}]: item {item.item_id!r} is there twice")
        seen.add(item.item_id)


def _wanted_advertisers(forecast: Forecast | Ids) -> set[int]:
    if isinstance(forecast, Forecast):
        return {item.advertiser_id for item in forecast.advertisers}
    return set(encode_ids(forecast, "forecast").tolist())


def _not_in(
    kept: Sequence[RetrievedItem], own: Sequence[RetrievedItem], per_advertiser: int | None
) -> list[RetrievedItem]:
    """Return the items that ``own`` lacks, up to the limit of each advertiser."""
    present = {item.item_id for item in own}
    found = [item for item in kept if item.item_id not in present]
    if per_advertiser is None:
        return found
    counts = Counter(item.advertiser_id for item in own)
    few = []
    for item in found:
        if counts[item.advertiser_id] < per_advertiser:
            counts[item.advertiser_id] += 1
            few.append(item)
    return few


def _spread(
    own: Sequence[RetrievedItem], extra: Sequence[RetrievedItem]
) -> tuple[BlendedItem, ...]:
    """Merge the lists so that every prefix has about the same share of each."""
    keyed = [
        ((place + 0.5) / len(items), _blended(item, source))
        for items, source in ((own, ItemSource.CONVENTIONAL), (extra, ItemSource.FORECAST))
        for place, item in enumerate(items)
    ]
    return tuple(item for _, item in sorted(keyed, key=lambda pair: pair[0]))


def _blended(item: RetrievedItem, source: ItemSource) -> BlendedItem:
    return BlendedItem(
        item_id=item.item_id,
        advertiser_id=item.advertiser_id,
        score=item.score,
        source=source,
    )
