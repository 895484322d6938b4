from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client import (
    Advertiser,
    Forecast,
    InvalidArgumentError,
    ItemSource,
    Reason,
    RetrievedItem,
    advertiser_concentration,
    blend_retrieved,
)
from adprior_client.blending import BlendedItem


def item(item_id: int | str, advertiser_id: int = 1, score: float = 0.0) -> RetrievedItem:
    return RetrievedItem(item_id=item_id, advertiser_id=advertiser_id, score=score)


def ids(blended: tuple[BlendedItem, ...]) -> list[int | str]:
    return [entry.item_id for entry in blended]


def sources(blended: tuple[BlendedItem, ...]) -> str:
    """Return a letter for each item: c (conventional) or f (forecast)."""
    return "".join(entry.source[0] for entry in blended)


def forecast(*advertiser_ids: int, withheld: bool = False) -> Forecast:
    named = tuple(
        Advertiser(advertiser_id=key, name=f"name {key}", log_prob=-1.0) for key in advertiser_ids
    )
    return Forecast(
        advertisers=() if withheld else named,
        withheld=named if withheld else (),
        exact=True,
        missing_mass=0.1,
        bundle_id="b",
    )


# Items 0 to 7 belong to advertisers 1 and 2 in turn. The filter keeps advertiser 2: 10 to 13 too.
CONVENTIONAL = [item(place, 1 + place % 2, score=-place) for place in range(8)]
FILTERED = [item(place, 2) for place in (1, 3, 10, 5, 11, 12, 13)]


def test_reserved_places_go_to_items_not_yet_there() -> None:
    blended = blend_retrieved(CONVENTIONAL, FILTERED, [2], budget=6, quota=0.34)
    # Four are conventional, 0 to 3. Of the filtered list 1 and 3 are among them: 10 and 5 follow.
    assert ids(blended) == [0, 10, 1, 2, 5, 3]
    assert sources(blended) == "cfccfc"
    assert [entry.score for entry in blended] == [0, 0, -1, -2, 0, -3]


def test_unfilled_places_are_conventional() -> None:
    blended = blend_retrieved(CONVENTIONAL, FILTERED[:3], [2], budget=6, quota=0.5)
    assert sorted(ids(blended), key=str) == [0, 1, 10, 2, 3, 4]
    assert sources(blended).count("f") == 2  # 3 and 10


def test_the_forecast_fills_places_that_a_short_list_leaves() -> None:
    blended = blend_retrieved(CONVENTIONAL[:2], FILTERED, [2], budget=5, quota=0.2)
    assert Counter(ids(blended)) == Counter([0, 1, 3, 10, 5])


def test_the_filter_is_enforced() -> None:
    longer = [item(20, 7), *FILTERED]
    assert blend_retrieved(CONVENTIONAL, longer, [2], budget=6, quota=0.5) == blend_retrieved(
        CONVENTIONAL, FILTERED, [2], budget=6, quota=0.5
    )


def test_a_limit_of_one_adds_only_new_advertisers() -> None:
    filtered = [item(30, 2), item(31, 5), item(32, 5), item(33, 6)]
    blended = blend_retrieved(
        CONVENTIONAL, filtered, [2, 5, 6], budget=8, quota=0.5, per_advertiser=1
    )
    added = [entry.item_id for entry in blended if entry.source is ItemSource.FORECAST]
    assert added == [31, 33]
    assert len(blended) == 8


def test_a_forecast_and_its_ids_blend_alike() -> None:
    blended = blend_retrieved(CONVENTIONAL, FILTERED, forecast(2), budget=6, quota=0.34)
    for advertisers in ([2], np.array([2], dtype=np.int32)):
        assert blended == blend_retrieved(CONVENTIONAL, FILTERED, advertisers, budget=6, quota=0.34)


@pytest.mark.parametrize(
    "nothing", [[], Forecast.none(Reason.DEADLINE), forecast(2, withheld=True)], ids=str
)
def test_without_a_forecast_the_conventional_list_comes_back(nothing: Any) -> None:
    blended = blend_retrieved(CONVENTIONAL, FILTERED, nothing, budget=6, quota=0.5)
    assert ids(blended) == [0, 1, 2, 3, 4, 5]
    assert sources(blended) == "cccccc"


def test_a_share_is_not_lost_to_rounding() -> None:
    conventional = [item(place) for place in range(100)]
    filtered = [item(place, 2) for place in range(100, 200)]
    blended = blend_retrieved(conventional, filtered, [2], budget=100, quota=0.29)
    assert sources(blended).count("f") == 29


LISTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), unique_by=lambda pair: pair[0])


@given(
    conventional=LISTS,
    filtered=LISTS,
    advertisers=st.sets(st.integers(1, 4)),
    budget=st.integers(1, 40),
    quota=st.floats(0, 1),
    per_advertiser=st.none() | st.integers(1, 3),
)
def test_the_properties_of_a_blended_list(
    conventional: list[tuple[int, int]],
    filtered: list[tuple[int, int]],
    advertisers: set[int],
    budget: int,
    quota: float,
    per_advertiser: int | None,
) -> None:
    own, other = ([item(*pair) for pair in pairs] for pairs in (conventional, filtered))
    blended = blend_retrieved(
        own, other, sorted(advertisers), budget=budget, quota=quota, per_advertiser=per_advertiser
    )
    allowed = [entry for entry in other if entry.advertiser_id in advertisers]
    found = ids(blended)
    assert len(set(found)) == len(found) <= budget
    taken = {source: [e.item_id for e in blended if e.source is source] for source in ItemSource}
    for source, given_items in ((ItemSource.CONVENTIONAL, own), (ItemSource.FORECAST, allowed)):
        order = [entry.item_id for entry in given_items]
        assert taken[source] == sorted(taken[source], key=order.index)

    reserved = math.floor(quota * budget + 1e-9)
    extra = len(taken[ItemSource.FORECAST])
    assert extra <= max(reserved, budget - len(own))
    if quota == 0 or not advertisers:
        assert found == [entry.item_id for entry in own[:budget]]
    elif per_advertiser is None:
        union = {entry.item_id for entry in (*own, *allowed)}
        assert len(found) == min(budget, len(union))
        first = {entry.item_id for entry in own[: budget - reserved]}
        novel = sum(entry.item_id not in first for entry in allowed)
        assert extra >= min(reserved, novel)
    else:
        assert len(found) >= min(budget, len(own))
        counts = Counter(e.advertiser_id for e in blended if e.source is ItemSource.FORECAST)
        assert all(count <= per_advertiser for count in counts.values())


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_every_prefix_has_about_the_same_shares(own: int, extra: int, cut: int) -> None:
    conventional = [item(place) for place in range(own)]
    filtered = [item(100 + place, 2) for place in range(extra)]
    budget = own + extra
    blended = blend_retrieved(conventional, filtered, [2], budget=budget, quota=extra / budget)
    begun = sources(blended[:cut]).count("f")
    assert abs(begun - extra / budget * min(cut, budget)) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget: found 0, expected at least 1"),
        ({"budget": 2.0}, "budget: found float, expected an integer"),
        ({"quota": 1.1}, "quota: found 1.1, expected 0 to 1"),
        ({"quota": math.nan}, "quota: found nan, expected 0 to 1"),
        ({"quota": "much"}, "quota: found str, expected a number"),
        ({"per_advertiser": 0}, "per_advertiser: found 0, expected at least 1"),
        (
            {"conventional": "items"},
            "conventional: found str, expected a sequence of Retri",
        ),
        ({"filtered": [(1, 2, 3.0)]}, r"filtered\[0\]: found tuple, expected a RetrievedItem"),
        ({"filtered": [item("a"), item("a")]}, r"filtered\[1\]: item 'a' is there twice"),
        (
            {"filtered": [item(1, score=math.inf)]},
            r"filtered\[0\].score: found inf, expected a f",
        ),
        ({"forecast": ["Acme"]}, "forecast: found a str, expected an integer"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "conventional": CONVENTIONAL,
        "filtered": FILTERED,
        "forecast": [2],
        "budget": 6,
        "quota": 0.1,
    }
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        blend_retrieved(**(arguments | change))


def test_concentration() -> None:
    found = advertiser_concentration([7, 7, 7, 8])
    assert found.herfindahl == pytest.approx(0.75**2 + 0.25**2)
    assert found.top_share == pytest.approx(0.75)
    assert found.advertisers == 2


def test_the_concentration_of_an_empty_list() -> None:
    found = advertiser_concentration([])
    assert (found.herfindahl, found.top_share, found.advertisers) == (0.0, 0.0, 0)


@given(st.lists(st.integers(), min_size=1).map(lambda ids: [key % 5 for key in ids]))
def test_concentration_has_bounds(advertiser_ids: list[int]) -> None:
    found = advertiser_concentration(advertiser_ids)
    assert 1 / found.advertisers - 1e-9 <= found.herfindahl <= found.top_share + 1e-9
    assert found.top_share <= 1
