from __future__ import annotations

from datetime import UTC, datetime

from adprior_bench.data.log_summary import LogSummary
from adprior_build.data.event_log import UserHistory
from adprior_runtime.prompt.context import Event


def event(day: int, advertiser: str | None, action: str = "review") -> Event:
    time = datetime(2024, 5, day, tzinfo=UTC)
    return Event(time=time, action=action, **({"advertiser": advertiser} if advertiser else {}))


USERS = [
    UserHistory(
        user_id="a", profile={"age": "30"}, events=(event(3, "Acme"), event(9, "Acme  Pets"))
    ),
    UserHistory(user_id="b", events=(event(1, None), event(4, "Elsewhere"), event(5, "Acme"))),
]


def test_what_a_log_holds() -> None:
    log = LogSummary.of(USERS, lambda name: name.startswith("Acme"))
    assert (log.events, log.users, log.with_profile) == (5, 2, 1)
    assert (log.first_day, log.last_day) == ("2024-05-01", "2024-05-09")
    assert (log.without_advertiser, log.off_catalogue) == (1, 1)
    assert log.sentence() == (
        "5 events of 2 users (1 with a profile), 2024-05-01 to 2024-05-09; no ranker learns from 2 "
        "of them: 1 name no advertiser, 1 one that the catalogue does not have"
    )
    assert log.to_json()["actions"] == {"review": 5}


def test_events_are_called_after_the_logs_action() -> None:
    log = LogSummary.of(USERS, lambda _: True)
    assert (log.event_words(), log.action_words()) == ("review events", "`review`")
    mixed = [*USERS, UserHistory(user_id="c", events=(event(1, None, "click"),) * 5)]
    of_both = LogSummary.of(mixed, lambda _: True)
    assert (of_both.event_words(), of_both.action_words()) == (
        "events",
        "`review` 50%, `click` 50%",
    )
    unnamed = [UserHistory(user_id="c", events=(event(1, "Acme", "event"),))]
    assert LogSummary.of(unnamed, lambda _: True).event_words() == "events"


def test_a_log_of_nobody_has_no_days() -> None:
    log = LogSummary.of([], lambda _: True)
    assert (log.events, log.users, log.first_day, log.action_words()) == (0, 0, "", "")
