"""What one bulk run is asked: inputs, time, rules. Everything that its result depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from adprior_build.data.column_map import ColumnMap
from adprior_runtime.text.json_text import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where users come from: contexts, or events and profiles to assemble them from.

    Attributes:
        users: Parquet of ``user_id`` and ``context`` (the user context's JSON): a file, or a
            directory of files.
        events: Event log in Parquet instead, likewise.
        profiles: Profiles in Parquet, likewise; only with events.
        columns: What the columns of events and profiles are called.
        names: Names of advertisers by ``#id``, for logs that hold ids.
    """

    users: Path | None = None
    events: Path | None = None
    profiles: Path | None = None
    columns: ColumnMap | None = None
    names: Mapping[str, str] | None = None

    def sources(self) -> dict[str, Path]:
        """Return what there is, by kind: ``users``, ``events``, ``profiles``."""
        kinds = {"users": self.users, "events": self.events, "profiles": self.profiles}
        return {kind: path for kind, path in kinds.items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which forecasts are made.

    Attributes:
        as_of: The run's time, in UTC: with events, the time that the forecasts are for.
        max_age: Forecasts of this age are made anew.
        lateness: How long before a forecast an event may lie that came after it was made, to be
            seen at the next run (later ones wait until the forecast expires).
        bundle_id: The bundle that forecasts.
        top_k: Advertisers of a forecast; None for the bundle's number.
        everyone: Whether every user is done, whatever was forecast before.
        shards: Into how many parts users are split, by a hash of their id.
    """

    as_of: datetime
    max_age: timedelta
    lateness: timedelta
    bundle_id: str
    top_k: int | None = None
    everyone: bool = False
    shards: int = 1

    @property
    def date(self) -> date:
        """The partition that the run writes."""
        return self.as_of.date()


def fingerprint(*parts: Any) -> str:
    """Return 16 hexadecimal digits that stand for values; the same on every machine."""
    text = to_json(parts, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
