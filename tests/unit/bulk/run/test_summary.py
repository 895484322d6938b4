from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from adprior_bulk.run.shard_plan import ShardRecord
from adprior_bulk.run.summary import Summary, sum_counts


def test_rates_and_costs_are_those_of_this_command() -> None:
    record = ShardRecord(
        shard=0,
        file=None,
        dead_letters=None,
        counts={"users": 100, "forecast": 50, "exact": 40},
        began_at=10.0,
        ended_at=15.0,
        peak_rss_mb=300.0,
    )
    summary = Summary(
        counts=sum_counts([record, replace(record, shard=1)]),
        now=[record],
        wall_s=20.0,
        version="v",
        price_per_hour=3.6,
    )
    document = summary.to_json()
    assert (document["users"], document["forecast"], document["users_per_s"]) == (200, 100, 10.0)
    # 50 forecasts in the 5 s of this command's only shard.
    assert (document["forecast_now"], document["working_s"], document["wall_s"]) == (50, 5.0, 20.0)
    rows = dict(line.rsplit(maxsplit=1) for line in summary.to_text().splitlines() if " " in line)
    assert rows["forecasts per second"] == "10.0"
    assert rows["cost per million forecasts"] == "400.00"
    assert document["exact_fraction"] == 0.8
    # 50 forecasts in 20 s at 0.001 per second.
    assert document["cost_per_million_users"] == pytest.approx(400.0)


def test_a_run_without_forecasts_has_no_rate_and_no_cost() -> None:
    document = Summary(counts=Counter(), wall_s=0, version="", price_per_hour=1.0).to_json()
    assert document["users_per_s"] is document["cost_per_million_users"] is None


def test_notes_and_json_describe_the_inputs() -> None:
    counts = {
        "repeated_dropped": 3,
        "profiles_repeated": 2,
        "active_users": 4,
        "without_profile": 4,
        "due_new_user": 4,
    }
    summary = Summary(counts=Counter(counts), wall_s=1.0, version="v")
    repeated, several, unmatched = summary.notes()
    assert repeated.startswith("events: 3 rows repeat another in every column: dropped")
    assert several == "profiles: 2 users have more than one row: the last of each is used"
    assert unmatched.startswith("profiles: 4 of the 4 users of the events have no profile (100%);")
    assert summary.to_json()["inputs"] == {
        "repeated_dropped": 3,
        "repeated_kept": 0,
        "profiles_repeated": 2,
        "profiles_nameless": 0,
        "without_profile": 4,
    }
