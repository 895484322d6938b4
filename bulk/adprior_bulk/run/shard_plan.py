"""The plan that all shards of a run share, their number, and the record of a finished shard."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from adprior_bulk.inputs.pieces import Inputs, count_rows
from adprior_bulk.output.durable_files import write_durable_text
from adprior_bulk.output.manifest import DataFile, Manifest
from adprior_bulk.run.due_users import Rules
from adprior_runtime.text.json_text import to_json

_FEWEST_SHARDS, _MOST_SHARDS = 16, 4096
_USERS_PER_SHARD: Final = 1000
_EVENTS_PER_USER: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The part of a run that all shards share; sent to every worker.

    Attributes:
        output: The output directory, the same on every node.
        version: The run's id.
        inputs: The staged inputs.
        rules: Which users are due.
        previous: Files of the previous version, by shard.
    """

    output: Path
    version: str
    inputs: Inputs
    rules: Rules
    previous: Mapping[int, Sequence[str]]

    @property
    def directory(self) -> Path:
        """Directory of the unfinished run."""
        return self.output / "_runs" / self.version

    @property
    def staged(self) -> Path:
        """Directory of the inputs, split by user."""
        return self.directory / "staged"

    def record_path(self, shard: int) -> Path:
        """Return the path of a shard's record."""
        return self.directory / "done" / f"{shard:04d}.json"

    def attempts_path(self, shard: int) -> Path:
        """Return the path where attempts at a shard are logged."""
        return self.directory / "attempts" / f"{shard:04d}.txt"

    def new_path(self, shard: int, parent: str, ending: str) -> str:
        """Return the path of a new file for a shard, relative to the output directory."""
        partition = f"date={self.rules.date.isoformat()}/shard={shard:04d}"
        return f"{parent}/{partition}/{self.version}-{secrets.token_hex(4)}.{ending}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """The outcome of a shard.

    Attributes:
        shard: Its number.
        file: Its forecasts, None in a dry run.
        dead_letters: Its refused users, if any.
        counts: ``users``, ``forecast``, ``exact``, ``skipped``, ``carried``, ``forgotten``,
            ``from_future``, ``dead_letters``, ``due_…`` by reason, and the counts of `assemble`.
        seconds: Time spent, by step.
        began_at, ended_at: Seconds since 1970, by the worker's clock.
        peak_rss_mb: The worker's peak memory so far.
    """

    shard: int
    file: DataFile | None
    dead_letters: DataFile | None
    counts: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    began_at: float = 0.0
    ended_at: float = 0.0
    peak_rss_mb: float = 0.0

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a record; None if the shard is not done."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the record that `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        for key in ("file", "dead_letters"):
            document[key] = None if document[key] is None else DataFile(**document[key])
        return cls(**document)

    def write(self, path: Path) -> None:
        """Mark the shard as done."""
        write_durable_text(path, self.to_json())

    def to_json(self) -> str:
        """Return the record as text."""
        return to_json(asdict(self))


def choose_shards(output: Path, inputs: Inputs, requested: int | None) -> int:
    """Return the number of shards: as requested, as in the directory, or by the number of users."""
    if requested is not None:
        return requested
    if (previous := Manifest.load(output)) is not None:
        return previous.shards
    kinds = inputs.paths()
    users = (
        count_rows(kinds["users"])
        if "users" in kinds
        else math.ceil(count_rows(kinds["events"]) / _EVENTS_PER_USER)
    )
    return max(_FEWEST_SHARDS, min(_MOST_SHARDS, math.ceil(users / _USERS_PER_SHARD)))
