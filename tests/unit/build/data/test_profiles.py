from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.data.event_log import UserHistory, read_users
from adprior_build.data.profiles import note_profiles, note_unmatched
from adprior_runtime.errors import InvalidInputError

EVENTS = EventColumns(user="who", time="when", advertiser="brand")


class Files:
    """Writes events and profiles in one format, and reads them."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self.notes: list[str] = []
        self.events, self.profiles = (
            directory / f"{name}.{suffix}" for name in ("events", "profiles")
        )

    def read(self, who: Any, profiles: dict[str, Any], **columns: Any) -> list[UserHistory]:
        count = len(who)
        events = {"who": who, "when": ["2024-05-31"] * count, "brand": ["Acme"] * count}
        for path, content in ((self.events, events), (self.profiles, profiles)):
            write = pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table
            write(pa.table(content), path)
        mapped = ColumnMap(events=EVENTS, profiles=ProfileColumns(**({"user": "id"} | columns)))
        return read_users(self.events, self.profiles, mapped, say=self.notes.append)


@pytest.fixture(params=["csv", "parquet"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path, request.param)


@pytest.fixture
def parquet(tmp_path: Path) -> Files:
    return Files(tmp_path, "parquet")


def test_profiles_are_texts_without_nulls(parquet: Files) -> None:
    since = pa.array([datetime(2024, 5, 31, 12, tzinfo=UTC)] * 2, pa.timestamp("us", "No/Where"))
    columns = {"id": ["a", "b"], "age": [44, 3], "paid": [True, None], "since": since}
    (user,) = parquet.read(["a"], columns | {"city": [None, "Łódź"]})
    assert user.profile == {"age": "44", "paid": "true", "since": "2024-05-31T12:00:00+00:00"}


def test_the_maps_keys_are_read_in_their_order(files: Files) -> None:
    profiles = {"id": ["a"], "age": [44], "zip": ["x"], "state": ["NY"]}
    (user,) = files.read(["a"], profiles, keys=("state", "age"))
    assert list(user.profile.items()) == [("state", "NY"), ("age", "44")]


def test_a_user_without_a_profile_has_an_empty_one(files: Files) -> None:
    users = files.read(["a", "b"], {"id": ["b"], "age": [44]})
    assert [user.profile for user in users] == [{}, {"age": "44"}]


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
def test_ids_of_any_type_match(parquet: Files, ids: pa.Array) -> None:
    users = parquet.read(ids, {"id": pa.array([1, 2], pa.int64()), "age": [3, 4]})
    found = [(user.user_id, user.profile) for user in users]
    assert found == [("1", {"age": "3"}), ("2", {"age": "4"})]
    assert parquet.notes == []


def test_a_column_says_who_is_covered(files: Files) -> None:
    profiles = {"id": ["a", "b"], "age": ["30", "40"], "whole": [True, False]}
    users = files.read(["a", "b", "c"], profiles, covered="whole")
    assert [user.covered for user in users] == [True, False, True]
    assert users[1].profile == {"age": "40"}


def test_the_last_of_a_users_profiles_counts(files: Files) -> None:
    (user,) = files.read(["a"], {"id": ["a", "b", "a", None], "age": [1, 2, 3, 4]})
    assert user.profile == {"age": "3"}
    assert files.notes == [
        f"{files.profiles}: 1 user has more than one row: the last of each is used",
        f"{files.profiles}: 1 row has no user: left out",
    ]


def test_many_users_without_a_profile_are_reported(files: Files) -> None:
    who = [f"u{index}" for index in range(10)]
    files.read(who, {"id": who[:5], "age": who[:5]})
    assert files.notes == []
    files.read(who, {"id": who[:4], "age": who[:4]})
    (note,) = files.notes
    assert "6 of the 10 users of the events have no profile (60%)" in note


def test_profiles_that_match_nobody_are_refused(files: Files) -> None:
    with pytest.raises(InvalidInputError) as caught:
        files.read(["1"], {"id": ["u1"], "age": [44]})
    assert str(caught.value) == (
        f"{files.profiles}: none of the 1 users of {files.events} has a profile; are ids "
        "written the same way in both, and does the column map name the right user columns?"
    )


def test_profiles_without_their_table_or_column_are_refused(files: Files) -> None:
    with pytest.raises(InvalidInputError, match="no column id; found: who"):
        files.read(["a"], {"who": ["a"]})
    with pytest.raises(InvalidInputError, match=r"the column map has no table \[profiles\]"):
        read_users(files.events, files.profiles, ColumnMap(events=EVENTS))


def test_there_is_no_note_without_a_finding() -> None:
    assert note_profiles("file", repeated_users=0, nameless_rows=0) == []
    assert note_unmatched("file", users=10, without=5) == []
    assert note_unmatched("file", users=0, without=0) == []
