from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from adprior_bench.data.cases import day_cases, recorded_split
from adprior_build.catalogue.catalogue import Catalogue, read_catalogue
from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event

CUT = date(2024, 5, 10)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.parquet"
    columns = {
        "advertiser_id": [1, 2, 3],
        "name": ["Acme", "Acme Pets", "麦穗"],
        "aliases": ["Acme Inc", "", ""],
    }
    pa.parquet.write_table(pa.table(columns), path)
    return read_catalogue(path)


def event(day: int, advertiser: str | None, hour: int = 0) -> Event:
    return Event(
        time=datetime(2024, 5, day, hour, tzinfo=UTC), action="visit", advertiser=advertiser
    )


def user(*events: Event, user_id: str = "a") -> UserHistory:
    return UserHistory(user_id=user_id, profile={"age": "44"}, events=events)


def test_a_case_is_a_day_and_what_was_known_before_it(catalogue: Catalogue) -> None:
    events = (
        event(8, "Acme"),
        event(9, None),
        event(12, "麦穗", 7),
        event(12, "Acme", 8),
        event(12, "麦穗", 9),
        event(14, "Acme Pets"),
    )
    first, second = day_cases([user(*events)], CUT, catalogue)
    assert first.user_id == "a"
    assert first.context.profile == {"age": "44"}
    assert first.context.as_of == datetime(2024, 5, 12, tzinfo=UTC)
    assert tuple(first.context.history) == events[:2]
    assert (first.past, first.advertisers) == (("Acme",), ("麦穗", "Acme"))
    assert tuple(second.context.history) == events[:5]
    assert second.past == ("Acme", "麦穗", "Acme", "麦穗")
    assert second.advertisers == ("Acme Pets",)


def test_no_day_before_the_cut_is_a_case(catalogue: Catalogue) -> None:
    events = [event(day, "Acme", hour) for day in (9, 10, 11) for hour in (0, 23)]
    days = [case.context.as_of.date().day for case in day_cases([user(*events)], CUT, catalogue)]
    assert days == [10, 11]


def test_the_history_of_a_case_is_of_strictly_earlier_days(catalogue: Catalogue) -> None:
    events = [event(day, "Acme", hour) for day in range(1, 20) for hour in (0, 12, 23)]
    cases = list(day_cases([user(*events)], CUT, catalogue))
    assert len(cases) == 10
    for case in cases:
        assert max(item.time for item in case.context.history) < case.context.as_of
        assert len(case.past) == 3 * (case.context.as_of.day - 1)


def test_days_without_an_advertiser_are_no_cases(catalogue: Catalogue) -> None:
    assert list(day_cases([user(event(12, None)), user()], CUT, catalogue)) == []


def test_aliases_and_spaces_become_the_catalogues_names(catalogue: Catalogue) -> None:
    events = [event(9, "Acme  Pets"), event(12, "Acme Inc"), event(12, "Acme", 1)]
    (case,) = day_cases([user(*events)], CUT, catalogue)
    assert case.past == ("Acme Pets",)
    assert case.advertisers == ("Acme",)


def test_advertisers_outside_the_catalogue_are_kept(catalogue: Catalogue) -> None:
    (case,) = day_cases([user(event(12, "Elsewhere"))], CUT, catalogue)
    assert case.advertisers == ("Elsewhere",)


def test_every_users_past_is_their_own(catalogue: Catalogue) -> None:
    users = [user(event(9, "Acme"), event(12, "Acme")), user(event(12, "麦穗"), user_id="b")]
    cases = list(day_cases(users, CUT, catalogue))
    assert [(case.user_id, case.past) for case in cases] == [("a", ("Acme",)), ("b", ())]


def test_the_split_of_training_is_taken_up_again() -> None:
    record = {"split": {"cut": "2024-05-10", "test_share": 0.2, "salt": "s", "more": 1}}
    assert recorded_split(record) == (Split(cut=CUT, test_share=0.2, salt="s"), CUT)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"split": {}},
        {"split": {"cut": None, "test_share": 0.2, "salt": "s"}},
        {"split": {"cut": "2024-05-10", "test_share": 0.0, "salt": "s"}},
    ],
)
def test_a_model_without_unseen_users_and_days_is_not_evaluated(
    training: Mapping[str, Any],
) -> None:
    with pytest.raises(InvalidInputError, match="trained without --cut or --test-share"):
        recorded_split(training)
