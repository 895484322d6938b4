"""Warnings about a log, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.catalogue.catalogue_file import MIN_USERS
from adprior_build.data.column_map import ColumnMap
from adprior_build.inspection.coded_log import CodedLog
from adprior_build.inspection.column_facts import (
    LISTS,
    MIXED,
    UNZONED,
    ColumnFacts,
)
from adprior_build.inspection.log_facts import LogFacts
from adprior_build.inspection.proposal import words_of
from adprior_runtime.prompt.template import MAX_FIELD_CHARS

_MANY: Final = 0.5
"""A larger share is warned of."""
_FEW_ADVERTISERS: Final = 10
_FIRST_YEAR: Final = 1990
_FLOATS: Final = frozenset({"halffloat", "float", "double"})
_INDEXES: Final = ("", "Unnamed: 0", "index", "level_0")
_PROTECTED: Final = frozenset(
    {"age", "birth", "birthday", "birthdate", "dob", "ethnic", "ethnicity", "gender", "marital"}
    | {"race", "religion", "sex"}
)


def warn_of_columns(
    columns: ColumnMap, events: Sequence[ColumnFacts], users: pa.ChunkedArray
) -> Iterator[str]:
    """Yield warnings about the log's columns.

    Args:
        columns: The column map.
        events: The facts of the log's columns.
        users: The users' ids as text, of each row.
    """
    by_name = {facts.name: facts for facts in events}
    log = columns.events
    yield from _warn_of_ids(by_name[log.user], users)
    time = by_name[log.time]
    if time.holds == UNZONED:
        yield (
            f"{log.time} has times without a zone: they are read as UTC; if they are local, "
            "evenings fall on the wrong day: write the zone into the log"
        )
    elif time.holds == MIXED:
        yield f"{log.time} has a zone in some rows only; others are read as UTC: write all zones"
    advertiser = by_name[log.advertiser]
    if advertiser.share_distinct > _MANY and (advertiser.distinct or 0) > _FEW_ADVERTISERS:
        yield (
            f"{log.advertiser} has a different value in {advertiser.share_distinct:.0%} of the "
            "rows: is it a title or an item, not an advertiser? Name another column"
        )
    lists = [facts.name for facts in events if facts.holds == LISTS]
    if lists:
        yield (
            f"columns of lists are not read: {', '.join(lists)}; for advertisers, "
            "write a row for each; for words about an event, join them into one text column"
        )
    index = [f.name for f in events if f.name in _INDEXES or f.name.startswith("__index_level_")]
    numbered = [name for name in index if by_name[name].share_distinct == 1.0]
    if numbered:
        yield (
            f"column {numbered[0]!r} numbers the rows, so that no row repeats another: leave it "
            "out of the log, or rows that were delivered twice are counted twice"
        )


def _warn_of_ids(facts: ColumnFacts, column: pa.ChunkedArray) -> Iterator[str]:
    """Yield warnings about ids that went through floats or a spreadsheet."""
    name = facts.name
    if facts.type in _FLOATS:
        yield (
            f"{name} holds ids as {facts.type}: 7.0 is read as 7; long ids lose digits so: write "
            "them as integers or text"
        )
        return
    if (n := _count(column, r"^\d\.\d+[eE]\+?\d+$")) > 0:
        yield (
            f"{name} has {n:,} ids such as 1.23E+10, which lost digits in a spreadsheet: export "
            "the log again with ids as text"
        )
    elif (n := _count(column, r"^\d+\.0+$")) > 0:
        yield (
            f"{name} has {n:,} ids that look like floats (7.0): in CSV they are not the user 7 of "
            "another file; write them without .0"
        )


def _count(column: pa.ChunkedArray, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0)


def warn_of_no_keys(profiles: Path, left_out: Sequence[str]) -> str:
    """Return the warning about profiles that are not used, because no column is an attribute."""
    found = ", ".join(left_out) or "no other column"
    return (
        f"{profiles}: no column holds attributes that users share (found: {found}): the column map "
        "has no table [profiles], and the next commands do without --profiles; to show a column "
        "in prompts, name it in [profiles] keys (docs/training.md)"
    )


def warn_of_guessed_user(user: str, log: LogFacts) -> str:
    """Return the warning about a column of users that was guessed by its values."""
    return (
        f"no column's name says who the user is: {user} is a guess, with {log.median_events:g} "
        "events a user (median); if it is another column, write that into the column map and "
        "inspect the log with --columns"
    )


def warn_of_log(
    columns: ColumnMap, coded: CodedLog, log: LogFacts, people: Sequence[ColumnFacts]
) -> Iterator[str]:
    """Yield warnings about the rows of a log and the profiles; ``people`` are their columns."""
    if log.unusable:
        yield (
            f"{log.unusable:,} rows have no user, no time, or a time that is not ISO 8601, the "
            f"first in row {coded.unusable.rows[0]} (from 0): adprior train refuses the log until "
            "they are gone or repaired"
        )
    if not log.events:
        return
    first, last = (int(day[:4]) for day in (log.first_day, log.last_day))
    if first < _FIRST_YEAR or last > datetime.now(UTC).year:
        unit = columns.events.time_unit
        asked = "are these days right?" if unit is None else f'is time_unit = "{unit}" right?'
        yield f"events from {log.first_day} to {log.last_day}: {asked}"
    if log.days == 1:
        yield (
            "the log has one day: a cut needs more, and a model learns from the days between "
            "events; take a longer log"
        )
    if log.single > _MANY * log.users:
        yield (
            f"{log.single:,} of the {log.users:,} users have one event: a model learns from "
            "histories; is the user column right, or does the log cover too few days?"
        )
    if columns.events.repeated_rows is None and log.repeated_kept:
        yield (
            f"{log.repeated_kept:,} rows repeat another in every column and are kept, as events of "
            'one day: repeated_rows = "drop" drops them'
        )
    yield from _warn_of_advertisers(columns, coded, log)
    if log.with_profile is not None and log.with_profile < (1 - _MANY) * log.users:
        refused = "" if log.with_profile else " adprior train refuses such profiles"
        yield (
            f"{log.users - log.with_profile:,} of the {log.users:,} users have no profile: are ids "
            f"written the same way in both files?{refused}"
        )
    known = columns.profiles
    keys = () if known is None else known.keys or [facts.name for facts in people]
    protected = [key for key in keys if _PROTECTED & set(words_of(key))]
    if protected:
        yield (
            f"the model will read {', '.join(protected)}: leave out of keys, or deny in the prompt "
            "template (denied_profile_keys), what it must not"
        )


def _warn_of_advertisers(columns: ColumnMap, coded: CodedLog, log: LogFacts) -> Iterator[str]:
    name = columns.events.advertiser
    if log.without_advertiser > _MANY * log.events:
        yield f"{log.without_advertiser:,} of {log.events:,} events name no advertiser ({name})"
    if log.advertisers and log.listed < _FEW_ADVERTISERS:
        yield (
            f"the catalogue will have {log.listed:,} of {log.advertisers:,} advertisers, those "
            f"with events of {MIN_USERS} users: is {name} the right column? adprior catalogue "
            "--min-users lists more"
        )
    long = [len(each) for each in coded.names if len(each) > MAX_FIELD_CHARS]
    if long:
        yield (
            f"{len(long):,} advertisers have names longer than {MAX_FIELD_CHARS} characters (most: "
            f"{max(long)}): the model reads no more, unless max_field_chars of the prompt template "
            "is higher"
        )
    if holds_ids(coded):
        yield (
            f"{name} holds ids, which mean nothing to a language model: name a column of names, or "
            "give adprior train a catalogue with a name for each id (advertiser_id, name)"
        )


def holds_ids(coded: CodedLog) -> bool:
    """Tell whether the advertiser column holds ids of a catalogue (``#17``)."""
    return bool(coded.names) and all(
        name[:1] == "#" and name[1:].lstrip("-").isdigit() for name in coded.names if name
    )
