from __future__ import annotations

import pytest

from adprior_build.data.profiles import note_profiles, note_unmatched
from adprior_build.data.repeated_rows import note_repeated
from adprior_bulk.run.progress import Pace
from adprior_bulk.run.summary import Summary


@pytest.mark.parametrize(
    ("dropped", "kept", "told"),
    [
        (1, 0, "log: 1 row repeats another in every column: dropped"),
        (0, 2, "log: 2 rows repeat another in every column: kept, as events of one day"),
        (1200, 1, "log: 1,201 rows repeat another in every column: 1,200 dropped, 1 kept"),
    ],
)
def test_repeated_rows_are_told_of_with_what_decides(dropped: int, kept: int, told: str) -> None:
    (note,) = note_repeated("log", dropped=dropped, kept=kept)
    assert note.startswith(told)
    assert "[events] repeated_rows" in note


def test_where_nothing_is_found_nothing_is_said() -> None:
    assert note_repeated("log", dropped=0, kept=0) == []
    assert note_profiles("file", repeated_users=0, nameless_rows=0) == []
    assert note_unmatched("file", users=10, without=5) == []
    assert note_unmatched("file", users=0, without=0) == []


def test_a_bulk_runs_summary_says_what_was_found_in_its_inputs() -> None:
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
