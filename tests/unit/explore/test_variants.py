from __future__ import annotations

from typing import Any

from adprior_explore.variants import MOST_ADVERTISERS, MOST_EVENTS, describe_skipped, leave_out


def _event(day: int, advertiser: str | None = None, **more: Any) -> dict[str, Any]:
    named = {} if advertiser is None else {"advertiser": advertiser}
    return {"time": f"2024-05-{day:02}", "action": "purchase", **named, **more}


def _user(*history: dict[str, Any], **profile: str) -> dict[str, Any]:
    return {"profile": profile, "history": list(history), "as_of": "2024-06-01"}


def test_each_part_is_left_out_once() -> None:
    user = _user(_event(1, "Acme"), _event(2), _event(3, "Acme"), age="30")
    found = leave_out(user)
    assert [(each.kind, each.event_index, each.events) for each in found] == [
        ("profile", None, 0),
        ("event", 0, 1),
        ("event", 1, 1),
        ("event", 2, 1),
        ("advertiser", None, 2),
    ]
    assert found[0].document == user | {"profile": {}}
    assert found[2].document["history"] == [user["history"][0], user["history"][2]]
    assert found[4].document["history"] == [user["history"][1]]
    assert user["history"][0] == _event(1, "Acme")


def test_an_advertiser_of_one_event_is_that_event() -> None:
    assert [each.kind for each in leave_out(_user(_event(1, "Acme"), _event(2, "Other")))] == [
        "event",
        "event",
    ]


def test_one_advertiser_in_two_spellings_is_left_out_as_one() -> None:
    found = leave_out(_user(_event(1, "Żabka"), _event(2, "Z\u0307abka  ")))
    assert [each.label for each in found if each.kind == "advertiser"] == ["Żabka (2 events)"]


def test_only_the_latest_events_are_left_out_one_by_one() -> None:
    history = [_event(1 + place % 28, text=str(place)) for place in range(MOST_EVENTS + 5)]
    found = [each.event_index for each in leave_out(_user(*history)) if each.kind == "event"]
    assert len(found) == MOST_EVENTS
    oldest = {index for index, event in enumerate(history) if event["time"] < "2024-05-03"}
    assert oldest.isdisjoint(place for place in found if place is not None)


def test_only_the_advertisers_of_the_latest_events_are_left_out_one_by_one() -> None:
    latest, older = _event(3, "latest"), _event(2, "older")
    others = [_event(1, f"other {place // 2}") for place in range(2 * MOST_ADVERTISERS)]
    user = _user(latest, latest, older, older, *others)
    found = [each.advertiser for each in leave_out(user) if each.kind == "advertiser"]
    assert found[-2:] == ["older", "latest"]
    assert len(found) == MOST_ADVERTISERS
    assert describe_skipped(user) == (
        "Only the latest 40 of 84 events and the latest 40 of 42 advertisers with several events "
        "were left out one by one."
    )
    assert describe_skipped(_user(*others[:20])) is None


def test_an_empty_user_has_no_variants() -> None:
    assert leave_out({"as_of": "2024-06-01"}) == []
    assert leave_out(_user()) == []
