from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from adprior_build.data.event_log import UserHistory
from adprior_build.data.log_summary import LogSummary, describe_training_data
from adprior_build.data.split import Split
from adprior_runtime.prompt.context import Event


def user(name: str, *events: tuple[int, str | None], action: str = "review") -> UserHistory:
    """Return a user with events on days of February 2024, or of January for days below 0."""
    return UserHistory(
        user_id=name,
        profile={"age": "30"} if name == "a" else {},
        events=tuple(
            Event(
                time=datetime(2024, 1 if day < 0 else 2, abs(day), tzinfo=UTC),
                action=action,
                advertiser=advertiser,
            )
            for day, advertiser in events
        ),
    )


def is_known(name: str) -> bool:
    return name.lower().startswith("acme")


USERS = [user("a", (3, "Acme"), (9, "Acme  Pets")), user("b", (1, None), (4, "Moss"), (5, "Acme"))]


def test_a_summary_counts_events_users_days_and_unusable_events() -> None:
    log = LogSummary.of(USERS, is_known)
    assert log.to_json() == {
        "events": 5,
        "users": 2,
        "with_profile": 1,
        "first_day": "2024-02-01",
        "last_day": "2024-02-09",
        "without_advertiser": 1,
        "off_catalogue": 1,
        "actions": {"review": 5},
    }
    assert log.sentence() == (
        "5 events of 2 users (1 with a profile), 2024-02-01 to 2024-02-09; 2 events are "
        "unusable: 1 have no advertiser, 1 have one that is not in the catalogue"
    )


@pytest.mark.parametrize(
    ("users", "event_words", "action_words"),
    [
        (USERS, "review events", "`review`"),
        (
            [*USERS, user("c", *[(1, None)] * 5, action="click")],
            "events",
            "`review` 50%, `click` 50%",
        ),
        ([user("c", (1, "Acme"), action="event")], "events", "`event`"),
        ([], "events", ""),
    ],
)
def test_prose_names_events_after_the_logs_action(
    users: list[UserHistory], event_words: str, action_words: str
) -> None:
    log = LogSummary.of(users, is_known)
    assert (log.event_words(), log.action_words()) == (event_words, action_words)


def test_a_log_without_users_has_no_days() -> None:
    log = LogSummary.of([], is_known)
    assert (log.events, log.users, log.first_day, log.last_day) == (0, 0, "", "")


def describe(
    read: list[UserHistory], training: list[UserHistory], validation: list[UserHistory]
) -> list[str]:
    return describe_training_data(
        Path("log.csv"), is_known, read=read, training=training, validation=validation
    )


def test_training_reports_what_it_reads_uses_and_leaves_out() -> None:
    read = [
        user("a", (-9, None), (-3, "ACME"), (4, "Acme")),
        user("b", (-5, "Acme"), (-2, "Nobody")),
        user("c", (-2, "Acme"), (8, "Acme")),
    ]
    split = Split(cut=date(2024, 2, 1))
    training, validation = split.training_part(read[:1]), split.training_part(read[1:2])
    assert describe(read, training, validation) == [
        "log.csv: 7 events of 3 users, 2024-01-02 to 2024-02-08",
        "trains on 2 events of 1 users, validates on 2 events of 1 users",
        "leaves out 2 events of 1 users; 1 events on or after the cut; "
        "2 events as targets: they name no advertiser of the catalogue",
    ]
    assert describe(read[2:], read[2:], [])[1:] == [
        "trains on 2 events of 1 users, validates on 0 events of 0 users"
    ]
    assert describe([], [], []) == [
        "log.csv: 0 events of 0 users",
        "trains on 0 events of 0 users, validates on 0 events of 0 users",
    ]
