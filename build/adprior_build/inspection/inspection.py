"""An inspection: everything that is found out about a log, and the commands that come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adprior_build.catalogue.log_ids import read_log_ids
from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.event_log import check_matches, read_known_profiles
from adprior_build.data.event_table import EventTable, event_rows, read_event_table
from adprior_build.data.profiles import Profiles
from adprior_build.data.tables import read_table
from adprior_build.inspection.coded_log import CodedLog
from adprior_build.inspection.column_facts import WHOLE, ColumnFacts, describe_columns
from adprior_build.inspection.log_facts import LogFacts
from adprior_build.inspection.next_commands import next_commands
from adprior_build.inspection.proposal import Proposal, propose_columns, words_of
from adprior_build.inspection.split_facts import SplitFacts
from adprior_build.inspection.training_cost import TrainingCost
from adprior_build.inspection.warnings import (
    holds_ids,
    warn_of_columns,
    warn_of_guessed_user,
    warn_of_log,
    warn_of_no_keys,
)
from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an inspection found in a log.

    Attributes:
        events: The log.
        profiles: The profiles, if any.
        event_columns: The log's columns; that of users has no example.
        profile_columns: The profiles' columns, likewise; None without profiles.
        columns: The column map that was used; None if none could be proposed.
        proposal: The proposed map; None if one was given, or none could be proposed.
        log: Counts of the log; None if it cannot be read.
        split: The proposed split; None if the log is refused.
        cost: The cost of training; None as well.
        warnings: One line each.
        next_commands: Commands to paste.
        refused: Why `adprior train` would refuse the log, in one line; None if it would not.
    """

    events: Path
    profiles: Path | None
    event_columns: Sequence[ColumnFacts]
    profile_columns: Sequence[ColumnFacts] | None
    columns: ColumnMap | None = None
    proposal: Proposal | None = None
    log: LogFacts | None = None
    split: SplitFacts | None = None
    cost: TrainingCost | None = None
    warnings: Sequence[str] = ()
    next_commands: Sequence[str] = ()
    refused: str | None = None

    @classmethod
    def of(
        cls, events: Path, profiles: Path | None, columns: ColumnMap | None, map_file: Path | None
    ) -> Inspection:
        """Inspect a log.

        Args:
            events: The log.
            profiles: The profiles, if any.
            columns: The column map; None to propose one.
            map_file: Where the map is or will be, for the next commands; None for nowhere yet.

        Raises:
            InvalidInputError: A file cannot be read at all.
        """
        required = () if columns is None else columns.events.required()
        table = read_table(events, required, all_text=True)
        people = None if profiles is None else describe_columns(read_table(profiles, all_text=True))
        seen: dict[str, Any] = {
            "events": events,
            "profiles": profiles,
            "event_columns": describe_columns(table),
            "profile_columns": people,
        }
        try:
            if columns is None:
                seen["proposal"] = propose_columns(seen["event_columns"], people, events)
                columns = seen["proposal"].columns
            seen["columns"] = columns
            seen["event_columns"] = _hide_ids(seen["event_columns"], columns.events.user)
            if people is not None:
                seen["profile_columns"] = _hide_ids(people, _profile_user(seen))
            notes: list[str] = []
            log = read_event_table(events, columns.events)
            known = None
            if profiles is not None and "proposal" in seen and columns.profiles is None:
                notes.append(warn_of_no_keys(profiles, seen["proposal"].left_out))
            elif profiles is not None:
                known = read_known_profiles(profiles, columns, notes.append)
        except InvalidInputError as error:
            return cls(**seen, refused=str(error))
        return cls._of_log(seen, log, known, notes, map_file)

    @classmethod
    def _of_log(
        cls,
        seen: dict[str, Any],
        log: EventTable,
        profiles: Profiles | None,
        notes: Sequence[str],
        map_file: Path | None,
    ) -> Inspection:
        """Inspect a log that was read.

        Args:
            seen: The fields that are known already.
            log: The log.
            profiles: The profiles; None if there are none, or they are not used.
            notes: Lines about the profiles.
            map_file: See `of`.
        """
        columns, events = seen["columns"], seen["events"]
        people = None if profiles is None else seen["profiles"]
        by_user = None if profiles is None else profiles.by_user
        coded = CodedLog.of(log)
        facts = LogFacts.of(coded, log, by_user)
        warnings = [*warn_of_columns(columns, seen["event_columns"], log.table["user"]), *notes]
        if "proposal" in seen and "user" in seen["proposal"].guessed:
            warnings.append(warn_of_guessed_user(columns.events.user, facts))
        warnings += warn_of_log(columns, coded, facts, seen["profile_columns"] or ())
        seen = seen | {"log": facts, "warnings": warnings}
        if (refused := _find_refusal(columns, coded, facts, events, people)) is not None:
            return cls(**seen, refused=refused)
        split = SplitFacts.propose(coded)
        id_column = _find_id_column(events, columns.events, seen["event_columns"])
        return cls(
            **seen,
            split=split,
            cost=TrainingCost.estimate(coded, split, by_user or {}),
            next_commands=next_commands(
                events, people, map_file, split, holds_ids=holds_ids(coded), id_column=id_column
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior inspect --json`` prints."""
        split = None
        if self.split is not None:
            day = self.split.cut
            split = asdict(self.split) | {"cut": None if day is None else day.isoformat()}
        return {
            "events": str(self.events),
            "profiles": None if self.profiles is None else str(self.profiles),
            "event_columns": [asdict(facts) for facts in self.event_columns],
            "profile_columns": None
            if self.profile_columns is None
            else [asdict(facts) for facts in self.profile_columns],
            "column_map": None if self.columns is None else asdict(self.columns),
            "guessed": [] if self.proposal is None else list(self.proposal.guessed),
            "log": None if self.log is None else asdict(self.log),
            "split": split,
            "training": None if self.cost is None else _cost_json(self.cost),
            "warnings": list(self.warnings),
            "next_commands": list(self.next_commands),
            "refused": self.refused,
        }


def _hide_ids(columns: Sequence[ColumnFacts], user: str | None) -> list[ColumnFacts]:
    """Return columns without an example of the users' ids."""
    return [replace(facts, example="") if facts.name == user else facts for facts in columns]


def _profile_user(seen: dict[str, Any]) -> str | None:
    """Return the profiles' column of users; None if the given map has no profiles."""
    if "proposal" in seen:
        found: str | None = seen["proposal"].profile_user
        return found
    people = seen["columns"].profiles
    return None if people is None else people.user


def _find_refusal(
    columns: ColumnMap, coded: CodedLog, log: LogFacts, events: Path, profiles: Path | None
) -> str | None:
    """Return the line with which `adprior train` refuses a log that was read; None if it does not.

    Args:
        columns: The column map.
        coded: The log.
        log: Its counts.
        events: Its file.
        profiles: The file of the profiles; None if none are used.
    """
    bad = coded.unusable
    try:
        for _ in event_rows(bad.table, columns.events, str(events), bad.rows):
            pass  # the first raises
        if profiles is not None and log.users:
            check_matches(profiles, events, log.users, log.users - (log.with_profile or 0))
    except InvalidInputError as error:
        return str(error)
    return None if log.events else f"{events}: no row has a user and a time"


def _cost_json(cost: TrainingCost) -> dict[str, Any]:
    slow, fast = cost.tokens_per_s
    least, most = cost.minutes
    return {
        "tokens_an_epoch": cost.tokens,
        "tokens_an_epoch_without_text": cost.tokens_without_text,
        "tokens_per_s": [round(slow), round(fast)],
        "minutes_an_epoch": [round(least, 1), round(most, 1)],
        "processors": cost.processors,
    }


def _find_id_column(path: Path, columns: EventColumns, facts: Sequence[ColumnFacts]) -> str | None:
    """Return the column that has one id for each advertiser, and one advertiser for each id."""
    words = set(words_of(columns.advertiser))
    mapped = {*columns.named().values(), columns.event_id}
    for each in facts:
        found = words_of(each.name)
        if each.holds != WHOLE or each.name in mapped or "id" not in found or not words & {*found}:
            continue
        try:
            read_log_ids(path, columns, each.name)
        except InvalidInputError:
            continue
        return each.name
    return None
