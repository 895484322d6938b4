from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.data.event_log import UserHistory, all_are_ids, name_advertisers, read_users
from adprior_build.data.split import Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.terminal import progress

Write = Callable[[str, dict[str, Any]], Path]

PLAIN = ColumnMap(events=EventColumns(user="who", time="when", advertiser="brand"))
WITH_PROFILES = ColumnMap(events=PLAIN.events, profiles=ProfileColumns(user="id"))
NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Write columns as a table in either format."""

    def run(name: str, columns: dict[str, Any]) -> Path:
        path = tmp_path / f"{name}.{request.param}"
        if request.param == "csv":
            pa.csv.write_csv(pa.table(columns), path)
        else:
            pa.parquet.write_table(pa.table(columns), path)
        return path

    return run


def write_parquet(directory: Path, columns: dict[str, Any]) -> Path:
    path = directory / "events.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


def at(directory: Path, times: pa.Array) -> list[datetime]:
    """Return the times of one user's events, as they are read."""
    columns = {"who": ["a"] * len(times), "when": times, "brand": ["Acme"] * len(times)}
    (user,) = read_users(write_parquet(directory, columns), None, PLAIN)
    return [event.time for event in user.events]


def one(**columns: Any) -> dict[str, Any]:
    """Return the columns of one row, some of them replaced."""
    return {"who": ["a"], "when": ["2024-05-31"], "brand": ["Acme"]} | columns


def users_of(count: int) -> list[UserHistory]:
    return [UserHistory(user_id=str(index)) for index in range(count)]


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(InvalidInputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def load(directory: Path, text: str) -> ColumnMap:
    path = directory / "columns.toml"
    path.write_text(text, encoding="utf-8")
    return ColumnMap.load(path)


def test_a_column_map_is_read_whole(tmp_path: Path) -> None:
    assert load(
        tmp_path,
        '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\ncategory = "c"\ntext = "x"\n'
        'item = "i"\naction = "k"\ndefault_action = "visit"\n[profiles]\nuser = "id"\n'
        'keys = ["age", "zip"]\ncovered = "whole"\n',
    ) == ColumnMap(
        events=EventColumns(
            user="u",
            time="t",
            advertiser="a",
            category="c",
            text="x",
            action="k",
            item="i",
            default_action="visit",
        ),
        profiles=ProfileColumns(user="id", keys=("age", "zip"), covered="whole"),
    )


def test_what_a_column_map_may_leave_out(tmp_path: Path) -> None:
    columns = load(tmp_path, '[events]\nuser = "who"\ntime = "when"\nadvertiser = "brand"\n')
    assert columns == PLAIN
    assert columns.events.default_action == "event"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table [events] is missing"),
        ('[profiles]\nuser = "u"\n', "the table [events] is missing"),
        ("[events]\n[event]\n", "unknown keys ['event']; known: ['events', 'profiles']"),
        (
            '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\nadverb = "b"\n',
            "[events] unknown keys ['adverb']; known: ['action', 'advertiser'",
        ),
        ('[events]\nuser = "u"\ntime = "t"\n', "advertiser"),
        ('[events]\nuser = 7\ntime = "t"\nadvertiser = "a"\n', "[events] user is 7, expected a"),
        ('[events]\nuser = ["u"]\ntime = "t"\nadvertiser = "a"\n', "[events] user is ['u']"),
        ('events = "e"\n', "events is not a table [events]"),
        (
            '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\n'
            '[profiles]\nuser = "u"\nkeys = [1]\n',
            "[profiles] keys is [1]",
        ),
        ("[events\n", "not a column map"),
    ],
)
def test_a_wrong_column_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    shown = refusal(lambda: load(tmp_path, text))
    assert str(tmp_path / "columns.toml") in shown
    assert message in shown


def test_a_profile_key_that_is_in_no_list_is_refused(tmp_path: Path) -> None:
    columns = '[events]\nuser = "who"\ntime = "when"\nadvertiser = "brand"\n'
    profiles = '[profiles]\nuser = "id"\nkeys = "age"\n'
    message = refusal(lambda: load(tmp_path, columns + profiles))
    assert "[profiles] keys is 'age'" in message


def test_a_column_map_that_is_not_there_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "columns.toml"
    assert "not a column map" in refusal(lambda: ColumnMap.load(path))
    path.write_bytes(b"# Caf\xe9\n")
    assert "not a column map" in refusal(lambda: ColumnMap.load(path))


def test_users_are_ordered_by_id_and_events_by_time(write: Write) -> None:
    path = write(
        "events",
        {
            "who": ["b", "a", "b", "a"],
            "when": [date(2024, 5, day) for day in (3, 2, 1, 1)],
            "brand": ["Kite", "Acme", "Moss", None],
        },
    )
    users = read_users(path, None, PLAIN)
    assert [user.user_id for user in users] == ["a", "b"]
    assert [[event.advertiser for event in user.events] for user in users] == [
        [None, "Acme"],
        ["Moss", "Kite"],
    ]
    assert users[0].events[0].time == datetime(2024, 5, 1, tzinfo=UTC)
    assert users[0].profile == {}


def test_events_of_one_time_stay_in_the_order_of_the_log(write: Write) -> None:
    brands = ["Kite", "Acme", "Moss"]
    path = write("events", {"who": ["a"] * 3, "when": ["2024-05-31"] * 3, "brand": brands})
    (user,) = read_users(path, None, PLAIN)
    assert [event.advertiser for event in user.events] == brands


def test_every_column_of_the_map_is_read(write: Write) -> None:
    columns = EventColumns(
        user="who", time="when", advertiser="brand", category="kind", text="title", action="verb"
    )
    row = one(kind=[" FOOD "], title=["007"], verb=["click"], unused=[1])
    (user,) = read_users(write("events", row), None, ColumnMap(events=columns))
    assert user.events == (
        Event(
            time=datetime(2024, 5, 31, tzinfo=UTC),
            action="click",
            advertiser="Acme",
            category="FOOD",
            text="007",
        ),
    )


def test_an_event_without_an_action_has_the_default_one(write: Write) -> None:
    events = EventColumns(
        user="who", time="when", advertiser="brand", action="verb", default_action="visit"
    )
    columns = {name: values * 3 for name, values in one().items()}
    path = write("events", columns | {"verb": ["click", "", None]})
    (user,) = read_users(path, None, ColumnMap(events=events))
    assert [event.action for event in user.events] == ["click", "visit", "visit"]


def test_empty_texts_are_left_out(write: Write) -> None:
    events = EventColumns(user="who", time="when", advertiser="brand", category="kind")
    path = write("events", one(brand=["  \u200b"], kind=["\ufeff"]))
    (user,) = read_users(path, None, ColumnMap(events=events))
    assert (user.events[0].advertiser, user.events[0].category) == (None, None)


def test_users_that_look_like_numbers_stay_apart_in_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("who,when,brand\n007,2024-05-31,Acme\n7,2024-05-31,Acme\nNA,2024-05-31,Kite\n")
    assert [user.user_id for user in read_users(path, None, PLAIN)] == ["007", "7", "NA"]


def test_times_are_days_moments_or_text(tmp_path: Path) -> None:
    day = datetime(2024, 5, 31, tzinfo=UTC)
    assert at(tmp_path, pa.array([day.date()], pa.date32())) == [day]
    assert at(tmp_path, pa.array([day.date()], pa.date64())) == [day]
    assert at(tmp_path, pa.array(["2024-05-31", "2024-05-31T14:00:00+02:00"])) == [day, NOON]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_moment_without_a_zone_is_in_utc(tmp_path: Path, unit: str) -> None:
    assert at(tmp_path, pa.array([NOON.replace(tzinfo=None)], pa.timestamp(unit))) == [NOON]


def test_a_moment_with_a_zone_becomes_utc(tmp_path: Path) -> None:
    there = NOON.astimezone(timezone(timedelta(hours=2)))
    read = at(tmp_path, pa.array([there], pa.timestamp("us", "Europe/Paris")))
    assert read == [NOON]
    assert read[0].tzinfo is UTC


def test_nanoseconds_are_cut_off(tmp_path: Path) -> None:
    nanoseconds = int(NOON.timestamp()) * 1_000_000_000 + 1
    assert at(tmp_path, pa.array([nanoseconds], pa.timestamp("ns"))) == [NOON]


def test_a_moment_beyond_the_calendar_is_refused(tmp_path: Path) -> None:
    times = pa.array([0, 10**13], pa.timestamp("s"))
    assert str(tmp_path) in refusal(lambda: at(tmp_path, times))


@pytest.mark.parametrize("times", [["yesterday"], [19_000], [1.5], [True]])
def test_a_time_of_another_kind_is_refused_naming_the_row(tmp_path: Path, times: list[Any]) -> None:
    message = refusal(lambda: at(tmp_path, pa.array(times)))
    assert "row 0" in message
    assert "expected an ISO 8601" in message or "not an ISO 8601" in message


@pytest.mark.parametrize(
    "changed", [{"who": [None, "a"]}, {"who": ["", "a"]}, {"when": [None, date(2024, 5, 31)]}]
)
def test_a_row_without_user_or_time_is_named(write: Write, changed: dict[str, Any]) -> None:
    columns = {"who": ["a", "a"], "when": [date(2024, 5, 31)] * 2, "brand": ["Acme"] * 2}
    path = write("events", columns | changed)
    message = refusal(lambda: read_users(path, None, PLAIN)).replace(" (from 0)", "")
    assert message == f"{path}: row 0 has no user or no time"


def test_missing_columns_are_named_with_those_found(write: Write) -> None:
    path = write("events", {"who": ["a"], "day": ["2024-05-31"]})
    message = refusal(lambda: read_users(path, None, PLAIN))
    assert message == f"{path}: no column when, brand; found: who, day"


def test_text_of_the_log_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, one(brand=pa.array([b"Caf\xe9"], pa.binary())))
    message = refusal(lambda: read_users(path, None, PLAIN)).replace(" (from 0)", "")
    assert message == f"{path}: row 0 has a brand that is not UTF-8"


def test_ids_in_the_advertiser_column_become_the_catalogues_names(write: Write) -> None:
    columns = {name: values * 3 for name, values in one().items()}
    path = write("events", columns | {"brand": pa.array([17, None, 99], pa.int64())})
    users = read_users(path, None, PLAIN)
    assert all_are_ids(users)
    assert [event.advertiser for event in users[0].events] == ["#17", None, "#99"]
    (named,) = name_advertisers(users, [5, 17], ["Kite", "Acme"])
    assert [event.advertiser for event in named.events] == ["Acme", None, "#99"]


def test_events_that_name_their_advertiser_stay_as_they_are(tmp_path: Path) -> None:
    """A copy of each event of a large log would take longer than reading it."""
    (user,) = read_users(write_parquet(tmp_path, one(brand=["Acme"])), None, PLAIN)
    (named,) = name_advertisers([user], [17], ["Kite"])
    assert named.events[0] is user.events[0]


def test_each_pass_over_a_long_log_has_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUICK_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    users = read_users(write_parquet(tmp_path, one(brand=["Acme"])), None, PLAIN)
    name_advertisers(users, [17], ["Kite"])
    said = capsys.readouterr().err
    for what in ("reading ", "ordering histories: ", "naming advertisers: "):
        assert what in said


def test_negative_ids_are_ids(tmp_path: Path) -> None:
    users = read_users(write_parquet(tmp_path, one(brand=[-3])), None, PLAIN)
    assert all_are_ids(users)
    assert name_advertisers(users, [-3], ["Acme"])[0].events[0].advertiser == "Acme"


@pytest.mark.parametrize("brand", ["365", "#Acme", "Acme", None])
def test_names_are_no_ids(tmp_path: Path, brand: str | None) -> None:
    brands = pa.array([brand], pa.string())
    users = read_users(write_parquet(tmp_path, one(brand=brands)), None, PLAIN)
    assert not all_are_ids(users)
    assert users[0].events[0].advertiser == brand


def test_profiles_are_texts_without_nulls(tmp_path: Path) -> None:
    events = write_parquet(tmp_path, {name: values * 2 for name, values in one().items()})
    profiles = tmp_path / "profiles.parquet"
    columns = {"id": ["a", "b"], "age": [44, 3], "paid": [True, None], "city": [None, "Łódź"]}
    pa.parquet.write_table(pa.table(columns), profiles)
    (user,) = read_users(events, profiles, WITH_PROFILES)
    assert user.profile == {"age": "44", "paid": "true"}


def test_moments_of_a_profile_are_in_utc_whatever_zone_a_machine_knows(tmp_path: Path) -> None:
    events = write_parquet(tmp_path, one(who=["u1"]))
    since = pa.array([NOON], pa.timestamp("us", "Nowhere/Known"))
    profiles = tmp_path / "profiles.parquet"
    pa.parquet.write_table(pa.table({"id": ["u1"], "since": since}), profiles)
    (user,) = read_users(events, profiles, WITH_PROFILES)
    assert user.profile == {"since": "2024-05-31T12:00:00+00:00"}


def test_only_the_keys_asked_for_are_read_in_their_order(write: Write) -> None:
    profiles = write("profiles", {"id": ["a"], "age": [44], "zip": ["x"], "state": ["NY"]})
    columns = ColumnMap(
        events=PLAIN.events, profiles=ProfileColumns(user="id", keys=("state", "age"))
    )
    (user,) = read_users(write("events", one()), profiles, columns)
    assert list(user.profile.items()) == [("state", "NY"), ("age", "44")]


def test_users_of_integer_ids_find_their_profiles(write: Write) -> None:
    profiles = write("profiles", {"id": [7], "age": [44]})
    (user,) = read_users(write("events", one(who=[7])), profiles, WITH_PROFILES)
    assert (user.user_id, user.profile) == ("7", {"age": "44"})


def test_a_user_without_a_profile_has_an_empty_one(write: Write) -> None:
    profiles = write("profiles", {"id": ["b"], "age": [44]})
    events = {name: values * 2 for name, values in one().items()} | {"who": ["a", "b"]}
    users = read_users(write("events", events), profiles, WITH_PROFILES)
    assert [user.profile for user in users] == [{}, {"age": "44"}]


def test_profiles_need_a_table_in_the_map(write: Write) -> None:
    profiles = write("profiles", {"id": ["a"]})
    message = refusal(lambda: read_users(write("events", one()), profiles, PLAIN))
    assert message == f"{profiles}: the column map has no table [profiles]"


def test_a_missing_profile_column_is_named(write: Write) -> None:
    profiles = write("profiles", {"who": ["a"]})
    message = refusal(lambda: read_users(write("events", one()), profiles, WITH_PROFILES))
    assert f"{profiles}: no column id; found: who" in message


def test_a_user_is_on_the_same_side_on_every_machine() -> None:
    split = Split(test_share=0.3)
    assert [i for i in range(20) if split.is_test_user(f"user-{i}")] == [
        2,
        4,
        8,
        11,
        12,
        14,
    ]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.9])
def test_the_share_of_test_users_is_about_right(share: float) -> None:
    split = Split(test_share=share)
    found = sum(split.is_test_user(f"user-{index}") for index in range(10_000)) / 10_000
    assert abs(found - share) <= 4 * (share * (1 - share) / 10_000) ** 0.5


def test_a_greater_share_keeps_the_test_users_of_a_smaller_one() -> None:
    few, many = Split(test_share=0.1), Split(test_share=0.4)
    ids = [str(index) for index in range(2000)]
    assert {i for i in ids if few.is_test_user(i)} < {i for i in ids if many.is_test_user(i)}


def test_splits_of_other_salts_are_independent() -> None:
    first, second = Split(test_share=0.5), Split(test_share=0.5, salt="validation")
    ids = [str(index) for index in range(10_000)]
    both = sum(first.is_test_user(i) and second.is_test_user(i) for i in ids)
    assert 2300 < both < 2700


def test_training_sees_neither_test_users_nor_events_on_or_after_the_cut() -> None:
    midnight = datetime(2024, 5, 31, tzinfo=UTC)
    events = [
        Event(time=midnight + timedelta(microseconds=shift), action="visit") for shift in (-1, 0, 1)
    ]
    users = [UserHistory(user_id=str(index), events=events) for index in range(50)]
    split = Split(cut=midnight.date(), test_share=0.3)
    kept = split.training_part(users)
    assert [user.user_id for user in kept] == [
        str(index) for index in range(50) if not split.is_test_user(str(index))
    ]
    assert all(list(user.events) == events[:1] for user in kept)


def test_without_a_cut_training_sees_all_events() -> None:
    users = users_of(50)
    assert Split().training_part(users) == users


def test_items_follow_their_events(write: Write) -> None:
    events = write(
        "events",
        {
            "who": ["a", "a", "a"],
            "when": ["2024-05-03", "2024-05-01", "2024-05-02"],
            "brand": ["C", "A", "B"],
            "what": ["c1", "a1", None],
        },
    )
    columns = ColumnMap(events=replace(PLAIN.events, item="what"))
    (user,) = read_users(events, None, columns)
    assert [event.advertiser for event in user.events] == ["A", "B", "C"]
    assert list(user.items) == ["a1", "", "c1"]
    earlier = user.before(datetime(2024, 5, 3, tzinfo=UTC))
    assert ([e.advertiser for e in earlier.events], list(earlier.items)) == (["A", "B"], ["a1", ""])


def test_who_is_covered(write: Write) -> None:
    events = write(
        "events", {"who": ["a", "b", "c"], "when": ["2024-05-01"] * 3, "brand": ["A"] * 3}
    )
    profiles = write("profiles", {"id": ["a", "b"], "age": ["30", "40"], "whole": [True, False]})
    columns = ColumnMap(events=PLAIN.events, profiles=ProfileColumns(user="id", covered="whole"))
    users = read_users(events, profiles, columns)
    assert [user.covered for user in users] == [True, False, True]
    assert users[1].profile == {"age": "40"}


def said_of(
    events: Path, profiles: Path | None, columns: ColumnMap
) -> tuple[list[UserHistory], list[str]]:
    """Return the users of a log, and what was said of it."""
    lines: list[str] = []
    return read_users(events, profiles, columns, say=lines.append), lines


@pytest.mark.parametrize("missing", ["user", "time", "advertiser"])
def test_a_key_that_a_column_map_must_have_is_asked_for_by_name(
    tmp_path: Path, missing: str
) -> None:
    keys = {"user": "u", "time": "t", "advertiser": "a"}
    given = "".join(f'{key} = "{name}"\n' for key, name in keys.items() if key != missing)
    assert refusal(lambda: load(tmp_path, f"[events]\n{given}")) == (
        f"{tmp_path / 'columns.toml'}: [events] has no {missing}: it must name the columns of "
        "user, time, advertiser"
    )


def test_a_profile_table_without_a_user_is_told_of(tmp_path: Path) -> None:
    events = '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\n'
    message = refusal(lambda: load(tmp_path, f'{events}[profiles]\nkeys = ["age"]\n'))
    assert message.endswith("[profiles] has no user: it must name the columns of user")


def test_a_column_map_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, '\ufeff[events]\nuser="who"\ntime="when"\nadvertiser="brand"\n') == PLAIN


def test_what_becomes_of_repeated_rows_is_one_of_two_words(tmp_path: Path) -> None:
    events = '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\nrepeated_rows = "both"\n'
    message = refusal(lambda: load(tmp_path, events))
    assert message.endswith('[events] repeated_rows is \'both\', expected "drop" or "keep"')


def test_the_last_of_a_users_profiles_counts_and_it_is_said(write: Write) -> None:
    profiles = write("profiles", {"id": ["a", "b", "a", None], "age": [1, 2, 3, 4]})
    (user,), said = said_of(write("events", one()), profiles, WITH_PROFILES)
    assert user.profile == {"age": "3"}
    assert said == [
        f"{profiles}: 1 user has more than one row: the last of each is used",
        f"{profiles}: 1 row has no user: left out",
    ]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1.0, 2.0]),
        pa.array([1.0, 2.0], pa.float32()),
        pa.array([1, 2], pa.int8()),
        pa.array(["1", "2"]),
        pa.array(["1", "2"]).dictionary_encode(),
        pa.array([Decimal(1), Decimal(2)], pa.decimal128(38, 0)),
    ],
    ids=["double", "float", "int8", "string", "dictionary", "decimal"],
)
def test_users_find_their_profiles_whatever_type_their_ids_have(
    tmp_path: Path, ids: pa.Array
) -> None:
    columns = {"who": ids, "when": ["2024-05-31"] * 2, "brand": ["Acme"] * 2}
    profiles = tmp_path / "profiles.parquet"
    pa.parquet.write_table(pa.table({"id": pa.array([1, 2], pa.int64()), "age": [3, 4]}), profiles)
    users, said = said_of(write_parquet(tmp_path, columns), profiles, WITH_PROFILES)
    assert [(user.user_id, user.profile) for user in users] == [
        ("1", {"age": "3"}),
        ("2", {"age": "4"}),
    ]
    assert said == []


def test_an_event_whose_id_is_no_number_has_no_user(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, one(who=[float("nan")]))
    assert "row 0 has no user" in refusal(lambda: read_users(path, None, PLAIN))


def test_ids_that_have_lost_digits_are_refused(tmp_path: Path) -> None:
    for name, kind, bits in (
        ("who", pa.float64(), 53),
        ("brand", pa.float64(), 53),
        ("who", pa.float32(), 24),
        ("who", pa.float16(), 11),
    ):
        ids = pa.array(np.array([2.0**bits], kind.to_pandas_dtype()), kind)
        path = write_parquet(tmp_path, one(**{name: ids}))
        message = refusal(lambda path=path: read_users(path, None, PLAIN))  # type: ignore[misc]
        assert f"column {name} holds ids of type {kind} beyond 2^{bits}, which have" in message


def test_users_without_a_profile_are_told_of_where_they_are_many(write: Write) -> None:
    count = 10
    columns = {"who": [f"u{n}" for n in range(count)], "when": ["2024-05-31"] * count}
    events = write("events", columns | {"brand": ["Acme"] * count})

    def said(known: int) -> list[str]:
        ids = [f"u{n}" for n in range(known)]
        return said_of(events, write("p", {"id": ids, "age": ids}), WITH_PROFILES)[1]

    assert said(5) == []
    (line,) = said(4)
    assert "no profile of 6 of the 10 users of the events (60%)" in line


def test_profiles_of_nobody_are_refused(write: Write) -> None:
    profiles = write("profiles", {"id": ["u1"], "age": [44]})
    events = write("events", one(who=["1"]))
    message = refusal(lambda: read_users(events, profiles, WITH_PROFILES))
    assert message == (
        f"{profiles}: no profile of any of the 1 users of {events}; are their ids written alike, "
        "and the column map's user columns right?"
    )


@pytest.mark.parametrize(
    "brands",
    [
        pa.array([17.0, None]),
        pa.array([17, None], pa.uint8()),
        pa.array([Decimal("17.0"), None], pa.decimal128(4, 1)),
    ],
    ids=["double", "uint8", "decimal"],
)
def test_whole_numbers_of_any_type_are_ids(write: Write, brands: pa.Array) -> None:
    events = write("events", {"who": ["a"] * 2, "when": ["2024-05-31"] * 2, "brand": brands})
    users = read_users(events, None, PLAIN)
    assert all_are_ids(users)
    (named,) = name_advertisers(users, [17], ["Acme"])
    assert [event.advertiser for event in named.events] == ["Acme", None]


def test_advertisers_that_are_fractions_are_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, one(brand=[17.5]))
    message = refusal(lambda: read_users(path, None, PLAIN))
    assert message.startswith(f"{path}: column brand holds numbers that are not whole")


def test_a_csv_of_ids_and_a_name_is_one_of_names(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("who,when,brand\na,2024-05-31,365\na,2024-05-31,Acme\na,2024-05-31,1.50\n")
    (user,) = read_users(path, None, PLAIN)
    assert [event.advertiser for event in user.events] == ["365", "Acme", "1.50"]


def test_an_item_may_be_number_nought(tmp_path: Path) -> None:
    columns = ColumnMap(events=replace(PLAIN.events, item="what"))
    (user,) = read_users(write_parquet(tmp_path, one(what=[0])), None, columns)
    assert list(user.items) == ["0"]


def repeated(**columns: Any) -> dict[str, Any]:
    """Return columns of four equal rows and one that differs in a column of no use."""
    one_row = {"who": "a", "when": "2024-05-31", "brand": "Acme", "price": 1} | columns
    return {name: [value] * 5 for name, value in one_row.items()} | {"price": [1, 1, 1, 1, 2]}


@pytest.mark.parametrize(
    ("when", "changed", "events", "told"),
    [
        ("2024-05-31", {}, 5, "kept, as events of one day"),
        (date(2024, 5, 31), {}, 5, "kept"),
        (NOON.replace(hour=0), {}, 5, "kept"),
        ("2024-05-31 00:00:00+02", {}, 5, "kept"),
        ("2024-05-31 12:00:00 UTC", {}, 2, "dropped"),
        (NOON, {}, 2, "dropped"),
        (NOON, {"repeated_rows": "keep"}, 5, "kept"),
        ("2024-05-31", {"repeated_rows": "drop"}, 2, "dropped"),
        ("2024-05-31", {"event_id": "price"}, 2, "dropped"),
    ],
)
def test_rows_that_repeat_another_in_every_column(
    write: Write, when: Any, changed: dict[str, Any], events: int, told: str
) -> None:
    columns = ColumnMap(events=replace(PLAIN.events, **changed))
    path = write("events", repeated(when=when))
    (user,), said = said_of(path, None, columns)
    assert len(user.events) == events
    (line,) = said
    assert line.startswith(f"{path}: 3 rows repeat another in every column: {told}")
    assert "repeated_rows" in line


def test_rows_that_differ_anywhere_are_not_repeated(write: Write) -> None:
    path = write("events", repeated(when=NOON) | {"price": [1, 2, 3, 4, 5]})
    (user,), said = said_of(path, None, PLAIN)
    assert (len(user.events), said) == (5, [])


def test_an_id_of_each_event_must_be_a_column(write: Write) -> None:
    columns = ColumnMap(events=replace(PLAIN.events, event_id="receipt"))
    path = write("events", one())
    assert "no column receipt" in refusal(lambda: read_users(path, None, columns))
