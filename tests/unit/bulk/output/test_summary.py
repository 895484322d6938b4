from __future__ import annotations

from adprior_bulk.run.progress import Pace
from adprior_bulk.run.summary import Summary


def test_a_summary_reports_what_was_found_in_its_inputs() -> None:
    counts = {
        "repeated_dropped": 3,
        "profiles_repeated": 2,
        "active_users": 4,
        "without_profile": 4,
        "due_new_user": 4,
    }
    summary = Summary(
        engine="in-process",
        workers=1,
        counts=counts,
        wall_s=1.0,
        pace=Pace.of([]),
        seconds={},
        peak_rss_mb=0.0,
        version="v",
    )
    repeated, several, unmatched = summary.notes()
    assert repeated.startswith("events: 3 rows repeat another in every column: dropped")
    assert several == "profiles: 2 users have more than one row: the last of each is used"
    assert unmatched.startswith("profiles: no profile of 4 of the 4 users of the events (100%);")
    assert summary.to_json()["inputs"] == {
        "repeated_dropped": 3,
        "repeated_kept": 0,
        "profiles_repeated": 2,
        "profiles_nameless": 0,
        "without_profile": 4,
    }
