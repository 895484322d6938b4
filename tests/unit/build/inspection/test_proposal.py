from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.inspection.column_facts import ColumnFacts, describe_columns
from adprior_build.inspection.proposal import Proposal, propose_columns, words_of
from adprior_runtime.errors import InvalidInputError

ROWS = 40
USERS = [f"u{row % 8}" for row in range(ROWS)]
DAYS = [f"2024-05-{1 + row % 20:02}" for row in range(ROWS)]
NAMES = [f"Brand {row % 9}" for row in range(ROWS)]
KINDS = [f"KIND_{row % 3}" for row in range(ROWS)]
TITLES = [f"a thing, number {row}" for row in range(ROWS)]
NUMBERS = [1000 + row for row in range(ROWS)]
SECONDS = [1_700_000_000 + row for row in range(ROWS)]


def propose(profiles: dict[str, Any] | None = None, **columns: Any) -> Proposal:
    people = None if profiles is None else facts_of(profiles)
    return propose_columns(facts_of(columns), people, Path("events.csv"))


def facts_of(columns: dict[str, Any]) -> list[ColumnFacts]:
    return describe_columns(pa.table(columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": USERS, "date": DAYS, "brand": NAMES},
        {"CustomerID": USERS, "EventTime": DAYS, "Merchant Name": NAMES},
        {"uid": USERS, "ts": DAYS, "advertiser": NAMES, "advertiser_id": NUMBERS},
        {"household_key": USERS, "day": DAYS, "manufacturer": NAMES},
        {"user_name": TITLES, "member-id": USERS, "purchased_at": DAYS, "seller": NAMES},
    ],
    ids=", ".join,
)
def test_user_time_and_advertiser_are_known_by_their_names(columns: dict[str, Any]) -> None:
    found = propose(**columns)
    values = {id(value): name for name, value in columns.items()}
    events = found.columns.events
    expected = (values[id(USERS)], values[id(DAYS)], values[id(NAMES)])
    assert (events.user, events.time, events.advertiser) == expected
    assert found.guessed == ()


def test_other_roles_are_known_by_name_and_values() -> None:
    found = propose(
        visitor=USERS, when=DAYS, shop=NAMES, department=KINDS, product_title=TITLES,
        product_id=NUMBERS, event_type=KINDS, order_id=NUMBERS, price=NUMBERS,
    )  # fmt: skip
    assert found.columns.events == EventColumns(
        user="visitor",
        time="when",
        advertiser="shop",
        category="department",
        text="product_title",
        item="product_id",
        action="event_type",
        event_id="order_id",
    )


def test_an_order_of_several_rows_is_no_event_id() -> None:
    found = propose(user=USERS, time=DAYS, brand=NAMES, order_id=[row // 4 for row in range(ROWS)])
    assert found.columns.events.event_id is None
    assert found.columns.events.default_action == "purchase"


def test_numbers_of_seconds_get_their_unit() -> None:
    found = propose(user=USERS, ts=SECONDS, brand=NAMES, score=NUMBERS)
    assert (found.columns.events.time, found.columns.events.time_unit) == ("ts", "s")


def test_names_are_preferred_to_ids() -> None:
    assert propose(user=USERS, t=DAYS, brand_id=NUMBERS, brand=NAMES).columns.events.advertiser == (
        "brand"
    )
    alone = propose(user=USERS, t=DAYS, brand_id=[row % 9 for row in range(ROWS)])
    assert alone.columns.events.advertiser == "brand_id"


def test_what_no_name_says_is_guessed_and_marked() -> None:
    found = propose(user=USERS, col_2=DAYS, col_3=NAMES, col_4=KINDS)
    assert (found.columns.events.time, found.columns.events.advertiser) == ("col_2", "col_3")
    assert found.guessed == ("time", "advertiser")
    assert 'advertiser = "col_3"  # a guess' in found.to_toml()


def test_names_of_another_language_are_guessed_by_their_values() -> None:
    found = propose(Kunde=USERS, Zeitpunkt=SECONDS, Händler=[f"H {n % 5}" for n in range(ROWS)])
    events = found.columns.events
    assert (events.user, events.time, events.advertiser) == ("Kunde", "Zeitpunkt", "Händler")
    assert events.time_unit == "s"
    assert found.guessed == ("user", "time", "advertiser")


def test_the_column_that_both_files_have_is_the_user() -> None:
    """An item's number has more different values, so that values alone would name it."""
    log: dict[str, Any] = {
        "Nummer": USERS,
        "Artikel": [row // 2 for row in range(ROWS)],
        "Tag": DAYS,
    }
    people = {"Nummer": [f"u{row}" for row in range(8)], "Alter": ["30s", "40s"] * 4}
    assert propose(**log, Marke=NAMES).columns.events.user == "Artikel"
    found = propose(people, **log, Marke=NAMES)
    assert (found.columns.events.user, found.guessed) == ("Nummer", ("time", "advertiser"))
    assert found.columns.profiles == ProfileColumns(user="Nummer", keys=("Alter",))


def test_a_shared_attribute_is_no_user() -> None:
    people = {"who": [f"u{row}" for row in range(8)], "Ort": ["A", "B"] * 4}
    found = propose(people, Nummer=USERS, Ort=["A", "B"] * (ROWS // 2), Tag=DAYS, Marke=NAMES)
    assert found.columns.events.user != "Ort"


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"user": USERS, "time": DAYS, "amount": NUMBERS}, "advertiser"),
        ({"a": DAYS, "b": NUMBERS}, "user or advertiser"),
        ({"user": USERS, "brand": NAMES, "time": [["2024-05-31"]] * ROWS}, "time"),
    ],
)
def test_without_a_role_nothing_is_proposed(columns: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidInputError, match=f"events.csv: no column looks like {missing}[; ]"):
        propose(**columns)


def test_keys_are_attributes_that_users_share() -> None:
    people = {
        "customer_id": [f"u{row}" for row in range(200)],
        "age_group": ["30s", "40s"] * 100,
        "email": [f"{row}@example.org" for row in range(200)],
        "tags": [["a"], ["b"]] * 100,
        "__index_level_0__": list(range(200)),
    }
    found = propose(people, customer=USERS, time=DAYS, brand=NAMES)
    assert found.columns.profiles == ProfileColumns(user="customer_id", keys=("age_group",))
    assert found.left_out == ("email", "tags", "__index_level_0__")


@pytest.mark.parametrize("others", [("email", "phone"), ()], ids=["contacts", "users alone"])
def test_profiles_without_attributes_are_not_in_the_map(
    tmp_path: Path, others: tuple[str, ...]
) -> None:
    people = {name: [f"{name} {row}" for row in range(200)] for name in ("customer_id", *others)}
    found = propose(people, customer=USERS, time=DAYS, brand=NAMES)
    assert found.columns.profiles is None
    assert (found.left_out, found.profile_user) == (others, "customer_id")
    path = tmp_path / "columns.toml"
    path.write_text(found.to_toml(), encoding="utf-8")
    assert ColumnMap.load(path) == found.columns


@pytest.mark.parametrize("users", [8, 30, 100, 400])
def test_what_differs_from_user_to_user_is_no_key(users: int) -> None:
    people = {
        "user": [f"u{row}" for row in range(users)],
        "mail": [f"u{row}@example.org" for row in range(users)],
        "state": [f"S{row % 3}" for row in range(users)],
    }
    found = propose(profiles=people, user=USERS, date=DAYS, brand=NAMES)
    assert found.columns.profiles == ProfileColumns(user="user", keys=("state",))
    assert found.left_out == ("mail",)


def test_profiles_have_the_same_user_column_if_they_can() -> None:
    people = {"user": ["x"], "who": ["u1"]}
    found = propose(people, who=USERS, time=DAYS, brand=NAMES)
    assert found.columns.profiles == ProfileColumns(user="who", keys=("user",))


@pytest.mark.parametrize("name", ['a "b" \\ c', "Größe\t", "\x7f\x01", "#1 = x"])
def test_the_proposal_is_read_as_it_was_made(tmp_path: Path, name: str) -> None:
    found = propose({"user": USERS, name: KINDS}, user=USERS, time=DAYS, brand=NAMES)
    events = replace(found.columns.events, category=name, time_unit="ms", repeated_rows="drop")
    found = replace(found, columns=replace(found.columns, events=events))
    path = tmp_path / "columns.toml"
    path.write_text(found.to_toml(), encoding="utf-8")
    assert ColumnMap.load(path) == found.columns


def test_words_may_have_any_letters() -> None:
    assert words_of("Händler_ID 2") == ["händler", "id", "2"]


@pytest.mark.parametrize("name", ["userId", "USER_ID", "user id", "User-ID", "UserID"])
def test_the_words_of_a_name(name: str) -> None:
    assert words_of(name) == ["user", "id"]
