from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_runtime.errors import InvalidInputError
from support.paths import ROOT

REQUIRED = '[events]\nuser = "u"\ntime = "t"\nadvertiser = "a"\n'


def load(directory: Path, text: str) -> ColumnMap:
    path = directory / "columns.toml"
    path.write_text(text, encoding="utf-8")
    return ColumnMap.load(path)


def test_a_column_map_is_read_whole(tmp_path: Path) -> None:
    optional = (
        'category = "c"\ntext = "x"\nitem = "i"\naction = "k"\ndefault_action = "visit"\n'
        'time_unit = "ms"\n'
        '[profiles]\nuser = "id"\nkeys = ["age", "zip"]\ncovered = "whole"\n'
    )
    assert load(tmp_path, REQUIRED + optional) == ColumnMap(
        events=EventColumns(
            user="u",
            time="t",
            advertiser="a",
            category="c",
            text="x",
            action="k",
            item="i",
            default_action="visit",
            time_unit="ms",
        ),
        profiles=ProfileColumns(user="id", keys=("age", "zip"), covered="whole"),
    )


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_only_user_time_and_advertiser_are_required(tmp_path: Path, mark: str) -> None:
    columns = load(tmp_path, mark + REQUIRED)
    assert columns == ColumnMap(events=EventColumns(user="u", time="t", advertiser="a"))
    assert columns.events.default_action == "event"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table [events] is missing"),
        ('[profiles]\nuser = "u"\n', "the table [events] is missing"),
        ("[events]\n[event]\n", "unknown keys ['event']; known: ['events', 'profiles']"),
        (
            f'{REQUIRED}adverb = "b"\n',
            "[events] unknown keys ['adverb']; known: ['action', 'advertiser'",
        ),
        (
            '[events]\ntime = "t"\nadvertiser = "a"\n',
            "[events] has no user: it must name the columns of user, time, advertiser",
        ),
        ('[events]\nuser = "u"\nadvertiser = "a"\n', "[events] has no time: it must"),
        ('[events]\nuser = "u"\ntime = "t"\n', "[events] has no advertiser: it must"),
        ("[events]\n", "[events] has no user and no time and no advertiser: it must"),
        (REQUIRED.replace('"u"', "7"), "[events] user is 7, expected a column name"),
        (REQUIRED.replace('"u"', '["u"]'), "[events] user is ['u'], expected a column name"),
        ('events = "e"\n', "events is not a table [events]"),
        (f'{REQUIRED}[profiles]\nuser = "u"\nkeys = [1]\n', "[profiles] keys is [1], expected a "),
        (
            f'{REQUIRED}[profiles]\nuser = "u"\nkeys = "age"\n',
            "[profiles] keys is 'age', expected a list of column names",
        ),
        (
            f'{REQUIRED}[profiles]\nkeys = ["age"]\n',
            "[profiles] has no user: it must name the columns of user",
        ),
        (
            f'{REQUIRED}repeated_rows = "both"\n',
            '[events] repeated_rows is \'both\', expected "drop" or "keep"',
        ),
        (
            f'{REQUIRED}time_unit = "min"\n',
            '[events] time_unit is \'min\', expected "s" or "ms" or "us" or "ns"',
        ),
        ("[events\n", "not a column map"),
    ],
)
def test_a_wrong_column_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path, text)
    assert f"{tmp_path / 'columns.toml'}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"# Caf\xe9\n"], ids=["missing", "not UTF-8"])
def test_an_unreadable_column_map_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "columns.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="not a column map"):
        ColumnMap.load(path)


def test_the_docs_list_every_key_with_an_example_that_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.partition("| key | example | holds |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (?:`(\[\w+\])` )?`(\w+)` \| `(.+?)` \| \S", table, re.MULTILINE)
    known = {item.name for kind in (EventColumns, ProfileColumns) for item in fields(kind)}
    assert {key for _, key, _ in rows} == known
    assert len(rows) == len(table.strip().splitlines()) - 1
    lines = (f"{section}\n{key} = {example}" for section, key, example in rows)
    columns = load(tmp_path, "\n".join(lines))
    assert columns.events.time_unit == "ms"
    assert columns.profiles == ProfileColumns(
        user="user_id", keys=("age", "home_state"), covered="complete"
    )
