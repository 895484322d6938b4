"""An inspection as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from adprior_build.data.column_map import ColumnMap, ProfileColumns
from adprior_build.inspection.column_facts import ColumnFacts
from adprior_build.inspection.inspection import Inspection
from adprior_build.inspection.log_facts import LogFacts
from adprior_build.inspection.split_facts import SplitFacts
from adprior_build.inspection.training_cost import TrainingCost
from adprior_runtime.terminal.tables import Column, format_table

_COLUMNS: Final[tuple[Column, ...]] = (
    ("column", "left"),
    ("type", "left"),
    ("holds", "left"),
    ("empty", "right"),
    ("different", "right"),
    ("most frequent", "left"),
    ("is", "left"),
)


def format_report(found: Inspection) -> str:
    """Return the report: columns, counts, split, cost, warnings, and last the next commands."""
    return "\n\n".join("\n".join(part) for part in _parts(found) if part)


def _parts(found: Inspection) -> Iterator[Sequence[str]]:
    yield _describe_table(found.events, found.event_columns, _event_roles(found.columns))
    if found.profiles is not None and found.profile_columns is not None:
        people = None if found.columns is None else found.columns.profiles
        yield _describe_table(
            found.profiles, found.profile_columns, _profile_roles(people, found.profile_columns)
        )
    if found.proposal is not None:
        yield ["Proposed column map:", *_indented(found.proposal.to_toml().splitlines())]
        if found.proposal.left_out:
            names = ", ".join(found.proposal.left_out)
            yield [f"Left out of keys, as no attributes that users share: {names}"]
    if found.log is not None:
        yield [f"Log: {line}" for line in _describe_log(found.log)]
    if found.split is not None:
        yield [f"Split: {_describe_split(found.split)}"]
    if found.cost is not None:
        yield _describe_cost(found.cost)
    yield [f"Warning: {line}" for line in found.warnings]
    if found.next_commands:
        yield ["Next:", *_indented(found.next_commands)]


def _describe_table(
    path: Path, columns: Sequence[ColumnFacts], roles: Mapping[str, str]
) -> list[str]:
    rows = columns[0].rows if columns else 0
    cells = [
        (
            facts.name,
            facts.type,
            f"{facts.holds}, maybe {facts.unit} since 1970" if facts.unit else facts.holds,
            f"{facts.empty / max(1, facts.rows):.0%}" if facts.empty else "",
            "" if facts.distinct is None else f"{facts.distinct:,}",
            facts.example,
            roles.get(facts.name, ""),
        )
        for facts in columns
    ]
    return [f"{path}: {rows:,} rows", format_table(_COLUMNS, cells)]


def _event_roles(columns: ColumnMap | None) -> dict[str, str]:
    if columns is None:
        return {}
    roles = {name: role for role, name in columns.events.named().items()}
    return roles | ({columns.events.event_id: "event_id"} if columns.events.event_id else {})


def _profile_roles(columns: ProfileColumns | None, facts: Sequence[ColumnFacts]) -> dict[str, str]:
    if columns is None:
        return {}
    keys = columns.keys or [each.name for each in facts]
    covered = {} if columns.covered is None else {columns.covered: "covered"}
    return dict.fromkeys(keys, "key") | covered | {columns.user: "user"}


def _describe_log(log: LogFacts) -> Iterator[str]:
    days = f", {log.days:,} days from {log.first_day} to {log.last_day}" if log.events else ""
    yield f"{log.events:,} events of {log.users:,} users{days}"
    yield (
        f"{log.median_events:g} events a user (median; at most {log.most_events:,}); "
        f"{log.single:,} users have one"
    )
    yield (
        f"{log.advertisers:,} advertisers, {log.listed:,} with events of 3 users; "
        f"{log.without_advertiser:,} events without one"
    )
    if log.actions:
        yield "actions: " + ", ".join(f"{name} {n:,}" for name, n in log.actions.items())
    if log.repeated_dropped or log.repeated_kept:
        yield (
            f"rows that repeat another in every column: {log.repeated_dropped:,} dropped, "
            f"{log.repeated_kept:,} kept"
        )
    if log.with_profile is not None:
        yield (
            f"{log.with_profile:,} of {log.users:,} users have a profile "
            f"({log.with_profile / max(1, log.users):.0%}); {log.with_profile:,} of "
            f"{log.profiles:,} profiles have events"
        )


def _describe_split(split: SplitFacts) -> str:
    if split.cut is None:
        return f"no cut; test share {split.test_share:g}"
    return (
        f"cut {split.cut.isoformat()}, test share {split.test_share:g}: trains and "
        f"validates on {split.training_events:,} events of {split.training_users:,} users; tests "
        f"on {split.test_events:,} events of {split.test_users:,} others, on the cut and after"
    )


def _describe_cost(cost: TrainingCost) -> list[str]:
    slow, fast = cost.tokens_per_s
    least, most = cost.minutes
    spans = dict.fromkeys((_span(least), _span(most)))  # two short ones may read alike
    cores = "1 core" if cost.processors == 1 else f"{cost.processors} cores"
    spared = ""
    if cost.tokens_without_text < cost.tokens:
        spared = f", {_count(cost.tokens_without_text)} if text is left out of the column map"
    return [
        f"Training: about {_count(cost.tokens)} tokens an epoch with the default template{spared} "
        "(estimated from characters)",
        f"Training: LoRA on Gemma 3 270M may take {' to '.join(spans)} an epoch here, "
        f"at {slow:,.0f} to {fast:,.0f} tokens/s: a guess from a matrix product on {cores}, as "
        "busy as they are now",
        "Training: adprior train shows the real speed; docs/training.md says what makes it faster",
    ]


def _count(tokens: int) -> str:
    return f"{tokens / 1e6:.1f} million" if tokens >= 1e6 else f"{tokens:,}"


def _span(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute"
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
