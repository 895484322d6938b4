from __future__ import annotations

import random
from typing import Any

from adprior_bench.soak.mixed_load import alter_user

USER: dict[str, Any] = {
    "as_of": "2022-12-01",
    "history": [{"time": f"2022-11-{day:02}", "advertiser": "Acme"} for day in range(1, 21)],
}


def test_users_differ_in_length_and_advertisers_and_stay_in_order() -> None:
    draw = random.Random(3)
    altered = [alter_user(USER, ["Birch", "Cobalt"], draw) for _ in range(200)]
    assert {len(user["history"]) for user in altered} == set(range(21))
    names = {event["advertiser"] for user in altered for event in user["history"]}
    assert names == {"Acme", "Birch", "Cobalt"}
    for user in altered:
        times = [event["time"] for event in user["history"]]
        assert times == sorted(times)
        assert user["as_of"] == USER["as_of"]
    assert {event["advertiser"] for event in USER["history"]} == {"Acme"}  # not the given one


def test_a_user_without_history_stays_one() -> None:
    assert alter_user({"as_of": "2022-12-01"}, [], random.Random(0))["history"] == []
