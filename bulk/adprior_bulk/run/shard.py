"""One shard's work: who is due is forecast, the rest is carried over, one file is written.

A record tells that a shard is done and names its file. It is written last, in one step; a worker or
a driver that dies before leaves nothing that counts, and one that comes after finds the record.
"""

from __future__ import annotations

import json
import resource
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_bulk.inputs.candidates import Candidate, read_candidates
from adprior_bulk.inputs.incremental import Due, Previous, why_due
from adprior_bulk.output.manifest import DEAD_LETTERS as LETTERS_PLACE
from adprior_bulk.output.manifest import VERSIONS, DataFile, write_text_whole
from adprior_bulk.output.tables import DEAD_LETTERS, FORECASTS, rows_to_table, write_whole
from adprior_bulk.run.attempts import Attempts
from adprior_bulk.run.engines import Answer, Engine, Refused, Task, refused
from adprior_bulk.run.settings import Inputs, Rules
from adprior_client.stored.forecast_time import is_from_future
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.text.json_text import to_json

_CHUNK_USERS: Final = 256
_CHUNK_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """What every shard of a run has in common; travels between machines.

    Attributes:
        output: The output directory, the same on every node.
        version: The run's id.
        inputs: What was staged.
        rules: Who is done.
        previous: Files of the version before, by shard.
    """

    output: Path
    version: str
    inputs: Inputs
    rules: Rules
    previous: Mapping[int, Sequence[str]]

    @property
    def directory(self) -> Path:
        """Where the run keeps what it is not done with."""
        return self.output / "_runs" / self.version

    @property
    def staged(self) -> Path:
        """Where the inputs are, split by user."""
        return self.directory / "staged"

    def record_path(self, shard: int) -> Path:
        """Where the record of a shard is."""
        return self.directory / "done" / f"{shard:04d}.json"

    def attempts_path(self, shard: int) -> Path:
        """Where attempts at a shard are noted."""
        return self.directory / "attempts" / f"{shard:04d}.txt"

    def new_path(self, shard: int, parent: str, ending: str) -> str:
        """Return the path of a file to write for a shard, in the output directory."""
        partition = f"date={self.rules.date.isoformat()}/shard={shard:04d}"
        return f"{parent}/{partition}/{self.version}-{secrets.token_hex(4)}.{ending}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of a shard.

    Attributes:
        shard: Which.
        file: Its forecasts, None in a dry run.
        dead_letters: Its refused contexts, if any.
        counts: ``users``, ``forecast``, ``exact``, ``skipped``, ``carried``, ``forgotten``,
            ``from_future``, ``dead_letters``, ``due_…`` by reason, and what `assemble` counts.
        seconds: Time spent, by step.
        began_at, ended_at: When, in seconds since 1970 by the worker's clock.
        peak_rss_mb: The most memory that the worker has held so far.
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
        """Read a record; None where the shard is not done."""
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
        """Tell that the shard is done."""
        write_text_whole(path, self.to_json())

    def to_json(self) -> str:
        """Return the record as text."""
        return to_json(asdict(self))


def run_shard(plan: ShardPlan, engine: Engine | None, shard: int) -> Record:
    """Do one shard, unless it is done; without an engine only count what would be.

    Raises:
        AdpriorError: The inputs cannot be read, or the engine failed.
    """
    if engine is not None and (record := Record.load(plan.record_path(shard))) is not None:
        return record
    work = _ShardWork(plan, engine, shard)
    work.decide()
    record = work.finish()
    if engine is not None:
        record.write(plan.record_path(shard))
    return record


class _ShardWork:
    """A shard under way."""

    def __init__(self, plan: ShardPlan, engine: Engine | None, shard: int) -> None:
        self._plan, self._engine, self._shard = plan, engine, shard
        self._began_at = time.time()
        self._attempts = None if engine is None else Attempts(plan.attempts_path(shard))
        self._previous = _read_previous(plan, shard)
        self._known = Previous.by_user(self._previous)
        self._is_refused = np.array(
            [is_from_future(known.as_of) for _, known in self._known.values()], dtype=bool
        )
        self._is_carried = ~self._is_refused & np.array(
            [known.expires_at > plan.rules.as_of for _, known in self._known.values()], dtype=bool
        )
        self._kept: dict[str, tuple[datetime | None, datetime, datetime, int]] = {}
        self._replaced = 0
        self._rows: list[tuple[Any, ...]] = []
        self._letters: list[tuple[Any, ...]] = []
        self._counts: Counter[str] = Counter()
        self._seconds = {"decide": 0.0, "forecast": 0.0, "write": 0.0}

    def decide(self) -> None:
        """Go through the shard's users, and forecast those that are due, some at a time."""
        plan = self._plan
        users = read_candidates(
            plan.inputs,
            plan.staged,
            self._shard,
            plan.rules.shards,
            plan.rules.as_of,
            self._counts,
        )
        began = time.monotonic()
        tasks: list[Task] = []
        size = 0
        for user_id, found in users:
            task = self._task_if_due(user_id, found)
            if task is not None:
                tasks.append(task)
                size += len(task.raw)
            if len(tasks) == _CHUNK_USERS or size >= _CHUNK_BYTES:
                self._forecast(tasks)
                tasks, size = [], 0
        self._forecast(tasks)
        self._seconds["decide"] = time.monotonic() - began - self._seconds["forecast"]

    def finish(self) -> Record:
        """Write what there is; return the record."""
        began = time.monotonic()
        kept = self._previous.filter(pa.array(self._is_carried))
        new = rows_to_table(self._rows, FORECASTS)
        table = pa.concat_tables([kept, new]).sort_by("user_id")
        lost = len(self._is_carried) - kept.num_rows
        refused = int(self._is_refused.sum())
        self._counts.update(
            carried=kept.num_rows,
            forgotten=lost - self._replaced - refused,
            from_future=refused,
        )
        file = letters = None
        if self._engine is not None:
            file = self._write(table, self._plan.new_path(self._shard, VERSIONS, "forecasts"))
            if self._letters:
                path = self._plan.new_path(self._shard, LETTERS_PLACE, "letters")
                letters = self._write(rows_to_table(self._letters, DEAD_LETTERS), path)
        self._seconds["write"] = time.monotonic() - began
        return Record(
            shard=self._shard,
            file=file,
            dead_letters=letters,
            counts=dict(self._counts),
            seconds=dict(self._seconds),
            began_at=self._began_at,
            ended_at=time.time(),
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )

    def _write(self, table: pa.Table, path: str) -> DataFile:
        write_whole(table, self._plan.output / path)
        return DataFile(path=path, shard=self._shard, rows=table.num_rows)

    def _task_if_due(self, user_id: str | None, found: Candidate | Exception) -> Task | None:
        self._counts["users"] += user_id is not None
        try:
            if isinstance(found, Exception):
                raise found
            return None if user_id is None else self._task(user_id, found)
        except Exception as error:  # noqa: BLE001  one user's failure is not the others'
            self._bury(user_id, refused(error))
            return None

    def _task(self, user_id: str, user: Candidate) -> Task | None:
        if is_from_future(user.as_of):
            raise InvalidRequestError(
                "as_of: lies in the future by the clock of this machine; nobody would use its "
                "forecast"
            )
        row, previous = self._known.get(user_id, (-1, None))
        due = why_due(user, previous, self._plan.rules)
        if due is Due.NO:
            self._counts["skipped"] += 1
            self._is_carried[row] = True
            return None
        self._counts[f"due_{due}"] += 1
        if self._engine is None:
            self._replace(user_id)
            return None
        raw, context = user.context()
        try:
            expires_at = user.as_of + self._plan.rules.max_age
            counted_from = user.as_of - self._plan.rules.lateness
        except OverflowError:
            raise InvalidRequestError("as_of: too near an end of the calendar") from None
        digest = user.digest(counted_from, user.as_of)
        self._kept[user_id] = (user.last_activity, expires_at, counted_from, digest)
        return Task(user_id=user_id, raw=raw, context=context)

    def _replace(self, user_id: str) -> None:
        """Carry the user's last forecast, if any, no further."""
        if user_id in self._known:
            row = self._known[user_id][0]
            self._is_carried[row] = self._is_refused[row] = False
            self._replaced += 1

    def _forecast(self, tasks: Sequence[Task]) -> None:
        if self._engine is None or self._attempts is None or not tasks:
            return
        began = time.monotonic()
        for task, answer in self._attempts.forecast(self._engine, tasks):
            self._keep(task, answer)
        self._kept.clear()
        self._seconds["forecast"] += time.monotonic() - began

    def _keep(self, task: Task, answer: Answer) -> None:
        if isinstance(answer, Refused):
            self._bury(task.user_id, answer)
            return
        self._replace(task.user_id)
        self._counts.update(forecast=1, exact=int(answer.exact))
        self._rows.append(
            (
                task.user_id,
                task.context.as_of,
                answer.advertiser_ids,
                answer.log_probs,
                answer.exact,
                answer.missing_mass,
                answer.bundle_id,
                *self._kept[task.user_id],
            )
        )

    def _bury(self, user_id: str | None, why: Refused) -> None:
        """Note who was refused; their last forecast stays for as long as it holds."""
        self._counts["dead_letters"] += 1
        self._letters.append((user_id, why.code, why.message))


def _read_previous(plan: ShardPlan, shard: int) -> pa.Table:
    files = plan.previous.get(shard, ())
    tables = [
        pq.read_table(plan.output / file, partitioning=None, schema=FORECASTS) for file in files
    ]
    return pa.concat_tables(tables) if tables else FORECASTS.empty_table()
