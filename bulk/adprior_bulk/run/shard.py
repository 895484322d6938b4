"""One shard's work: forecast the users who are due, carry over the others, write one file.

A shard's record says that the shard is done and names its file. It is written last, in one step. If
a worker or the driver dies earlier, the shard is done again; if later, the record is found.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_bulk.inputs.shard_users import ShardUser, read_shard_users
from adprior_bulk.output import manifest
from adprior_bulk.output.manifest import DataFile
from adprior_bulk.output.tables import (
    DEAD_LETTERS,
    forecast_schema,
    rows_to_table,
    write_table,
)
from adprior_bulk.run.attempts import Attempts
from adprior_bulk.run.due_users import Due, Previous, events_digest, why_due
from adprior_bulk.run.shard_plan import ShardPlan, ShardRecord
from adprior_bulk.run.user_forecaster import Answer, Refused, Task, UserForecaster
from adprior_client.stored.forecast_time import is_from_future
from adprior_runtime.errors import InvalidRequestError

_CHUNK_USERS: Final = 256
_CHUNK_BYTES: Final = 8 << 20


def run_shard(plan: ShardPlan, forecaster: UserForecaster | None, shard: int) -> ShardRecord:
    """Do one shard, unless it is done; without a forecaster, only count the users.

    Raises:
        AdpriorError: The inputs cannot be read, or the forecaster failed.
    """
    if forecaster is not None and (record := ShardRecord.load(plan.record_path(shard))) is not None:
        return record
    work = _ShardWork(plan, forecaster, shard)
    work.forecast_due_users()
    record = work.finish()
    if forecaster is not None:
        record.write(plan.record_path(shard))
    return record


class _ShardWork:
    """A shard in progress."""

    def __init__(self, plan: ShardPlan, forecaster: UserForecaster | None, shard: int) -> None:
        self._plan, self._forecaster, self._shard = plan, forecaster, shard
        self._began_at = time.time()
        self._attempts = None if forecaster is None else Attempts(plan.attempts_path(shard))
        self._has_interests = plan.rules.interest_k is not None
        self._schema = forecast_schema(with_interests=self._has_interests)
        self._previous = _read_previous(plan, shard, self._schema)
        self._known = Previous.by_user(self._previous)
        self._is_from_future = np.array(
            [is_from_future(known.as_of) for _, known in self._known.values()], dtype=bool
        )
        self._is_carried = ~self._is_from_future & np.array(
            [known.expires_at > plan.rules.as_of for _, known in self._known.values()], dtype=bool
        )
        self._activity: dict[str, tuple[datetime | None, datetime, datetime, int]] = {}
        self._replaced = 0
        self._rows: list[tuple[Any, ...]] = []
        self._letters: list[tuple[Any, ...]] = []
        self._counts: Counter[str] = Counter()
        self._seconds = {"decide": 0.0, "forecast": 0.0, "write": 0.0}

    def forecast_due_users(self) -> None:
        """Read the shard's users, and forecast those who are due in chunks."""
        plan = self._plan
        users = read_shard_users(
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

    def finish(self) -> ShardRecord:
        """Write the shard's files; return the record."""
        began = time.monotonic()
        kept = self._previous.filter(pa.array(self._is_carried))
        new = rows_to_table(self._rows, self._schema)
        table = pa.concat_tables([kept, new]).sort_by("user_id")
        lost = len(self._is_carried) - kept.num_rows
        from_future = int(self._is_from_future.sum())
        self._counts.update(
            carried=kept.num_rows,
            forgotten=lost - self._replaced - from_future,
            from_future=from_future,
        )
        file = letters = None
        if self._forecaster is not None:
            file = self._write(table, manifest.VERSIONS, "forecasts")
            if self._letters:
                refused = rows_to_table(self._letters, DEAD_LETTERS)
                letters = self._write(refused, manifest.DEAD_LETTERS, "letters")
        self._seconds["write"] = time.monotonic() - began
        return ShardRecord(
            shard=self._shard,
            file=file,
            dead_letters=letters,
            counts=dict(self._counts),
            seconds=dict(self._seconds),
            began_at=self._began_at,
            ended_at=time.time(),
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )

    def _write(self, table: pa.Table, parent: str, ending: str) -> DataFile:
        path = self._plan.new_path(self._shard, parent, ending)
        write_table(table, self._plan.output / path)
        return DataFile(path=path, shard=self._shard, rows=table.num_rows)

    def _task_if_due(self, user_id: str | None, found: ShardUser | Exception) -> Task | None:
        self._counts["users"] += user_id is not None
        try:
            if isinstance(found, Exception):
                raise found
            return None if user_id is None else self._task(user_id, found)
        except Exception as error:  # noqa: BLE001  one user's failure must not stop the others
            self._add_dead_letter(user_id, Refused.of(error))
            return None

    def _task(self, user_id: str, user: ShardUser) -> Task | None:
        if is_from_future(user.as_of):
            raise InvalidRequestError(
                "as_of: lies in the future by the clock of this machine; its forecast could not be "
                "used"
            )
        row, previous = self._known.get(user_id, (-1, None))
        due = why_due(user, previous, self._plan.rules)
        if due is Due.NO:
            self._counts["skipped"] += 1
            self._is_carried[row] = True
            return None
        self._counts[f"due_{due}"] += 1
        if self._forecaster is None:
            self._replace(user_id)
            return None
        raw, context = user.context()
        try:
            expires_at = user.as_of + self._plan.rules.max_age
            counted_from = user.as_of - self._plan.rules.lateness
        except OverflowError:
            raise InvalidRequestError("as_of: too close to an end of the calendar") from None
        digest = events_digest(user.events_between(counted_from, user.as_of))
        self._activity[user_id] = (user.last_activity, expires_at, counted_from, digest)
        return Task(user_id=user_id, raw=raw, context=context)

    def _replace(self, user_id: str) -> None:
        """Drop the user's last forecast, if any."""
        if user_id in self._known:
            row = self._known[user_id][0]
            self._is_carried[row] = self._is_from_future[row] = False
            self._replaced += 1

    def _forecast(self, tasks: Sequence[Task]) -> None:
        if self._forecaster is None or self._attempts is None or not tasks:
            return
        began = time.monotonic()
        for task, answer in self._attempts.forecast(self._forecaster, tasks):
            self._add_answer(task, answer)
        self._activity.clear()
        self._seconds["forecast"] += time.monotonic() - began

    def _add_answer(self, task: Task, answer: Answer) -> None:
        if isinstance(answer, Refused):
            self._add_dead_letter(task.user_id, answer)
            return
        self._replace(task.user_id)
        self._counts.update(forecast=1, exact=int(answer.exact))
        interests = (answer.interest_ids, answer.interest_log_probs)
        self._rows.append(
            (
                task.user_id,
                task.context.as_of,
                answer.advertiser_ids,
                answer.log_probs,
                answer.exact,
                answer.missing_mass,
                answer.bundle_id,
                *self._activity[task.user_id],
                *(interests if self._has_interests else ()),
            )
        )

    def _add_dead_letter(self, user_id: str | None, why: Refused) -> None:
        """Record a refused user; their last forecast stays until it expires."""
        self._counts["dead_letters"] += 1
        self._letters.append((user_id, why.code, why.message))


def _read_previous(plan: ShardPlan, shard: int, schema: pa.Schema) -> pa.Table:
    files = plan.previous.get(shard, ())
    tables = [pq.read_table(plan.output / file, partitioning=None, schema=schema) for file in files]
    return pa.concat_tables(tables) if tables else schema.empty_table()
