"""A run from inputs to manifest: split by user, forecast shard by shard, publish in one step."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from adprior_bulk.inputs.input_counts import InputCounts, describe
from adprior_bulk.inputs.pieces import Inputs, Piece, input_pieces, list_files
from adprior_bulk.inputs.staging import is_staged
from adprior_bulk.output.directory import (
    drop_old_versions,
    drop_other_runs,
    lock_directory,
    show_table,
)
from adprior_bulk.output.manifest import VERSIONS, Manifest
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.progress import Pace, open_bar, show_pace
from adprior_bulk.run.ray_cluster import connect, map_items
from adprior_bulk.run.shard_plan import ShardPlan, ShardRecord
from adprior_bulk.run.summary import Summary, sum_counts
from adprior_bulk.run.user_forecaster import ForecasterSettings
from adprior_bulk.run.workers import ShardWorker, StagingWorker, read_answer
from adprior_client.stored.forecast_time import is_from_future
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.text.json_text import to_json

_FEW_PIECES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of ``adprior bulk``.

    Attributes:
        output: The output directory.
        inputs: The users.
        rules: The rules by which users are chosen.
        forecaster: The settings of the forecaster.
        workers: Number of workers; None for all cores, or all GPUs.
        ray_address: Address of a Ray cluster; None for this machine.
        keep: Number of versions whose files stay.
        price_per_hour: Price of all machines together.
        quiet: Whether to hide progress.
    """

    output: Path
    inputs: Inputs
    rules: Rules
    forecaster: ForecasterSettings
    workers: int | None = None
    ray_address: str | None = None
    keep: int = 2
    price_per_hour: float | None = None
    quiet: bool = False

    def run(self, *, dry_run: bool = False) -> Summary:
        """Do the remaining shards, and publish the result unless it is a dry run.

        Raises:
            InvalidInputError: The inputs or the output directory are wrong.
            EnvironmentProblemError: Ray or the servers failed; a new run continues this one.
        """
        began = time.monotonic()
        pieces = input_pieces(self.inputs)
        with lock_directory(self.output):
            previous = Manifest.load(self.output)
            if previous is not None and not dry_run:
                show_table(self.output, previous)  # in case the last run was killed just before
            request = self._request()
            if previous is not None and previous.request == request:
                self._tidy(previous)  # in case it was killed just before
                return Summary(
                    counts=Counter(previous.counts),
                    wall_s=time.monotonic() - began,
                    version=previous.version,
                    is_old=True,
                )
            plan = self._plan(request, previous)
            forecaster = None if dry_run else self.forecaster
            done, now, workers = self._do_shards(plan, pieces, forecaster)
            if not dry_run:
                self._publish(plan, request, done)
            return Summary(
                counts=sum_counts(done),
                now=now,
                engine="none" if dry_run else self.forecaster.name,
                workers=workers,
                wall_s=time.monotonic() - began,
                version="" if dry_run else plan.version,
                price_per_hour=self.price_per_hour,
            )

    def _do_shards(
        self, plan: ShardPlan, pieces: Sequence[Piece], forecaster: ForecasterSettings | None
    ) -> tuple[list[ShardRecord], list[ShardRecord], int]:
        """Return the records of all shards, those made now, and the number of workers."""
        if forecaster is not None:
            drop_other_runs(plan.directory)
        for directory in (plan.staged, plan.record_path(0).parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        local = self.ray_address is None
        self._say("starting Ray" if local else f"joining Ray at {self.ray_address}")
        gpus = 0 if forecaster is None else forecaster.gpus
        with connect(self.ray_address, self.workers, gpus) as workers:
            self._stage(plan, pieces, workers)
            self._say_inputs(plan, pieces)
            done, now = self._forecast(plan, forecaster, workers)
        return done, now, workers

    def _request(self) -> str:
        """Return the fingerprint of everything that the result depends on."""
        rules, inputs = self.rules, self.inputs
        files = {kind: _listing(path) for kind, path in inputs.paths().items()}
        names = sorted((inputs.names or {}).items())
        options = [rules.as_of, rules.max_age, rules.lateness, rules.bundle_id, rules.top_k]
        if rules.interest_k is not None:
            options.append(rules.interest_k)
        return _fingerprint(
            files, str(inputs.columns), names, options, rules.everyone, rules.shards
        )

    def _plan(self, request: str, previous: Manifest | None) -> ShardPlan:
        rules = self.rules
        files: dict[int, Sequence[str]] = {}
        if previous is not None:
            if previous.shards != rules.shards:
                raise InvalidInputError(
                    f"{self.output}: users are split into {previous.shards} shards there, found "
                    f"--shards {rules.shards}; omit it, or choose another output"
                )
            made_at = datetime.fromisoformat(previous.as_of)
            if made_at > rules.as_of and not is_from_future(made_at):
                raise InvalidInputError(
                    f"{self.output}: its forecasts are as of {previous.as_of}, this run is as of "
                    f"{rules.as_of.isoformat()}, which is earlier; choose another output"
                )
            files = {shard: previous.files_of(shard) for shard in range(rules.shards)}
        fingerprint = _fingerprint(
            request, None if previous is None else previous.version, VERSIONS
        )
        return ShardPlan(
            output=self.output.resolve(),
            version=f"{rules.as_of:%Y%m%dT%H%M%S}-{fingerprint}",
            inputs=self.inputs,
            rules=rules,
            previous=files,
        )

    def _stage(self, plan: ShardPlan, pieces: Sequence[Piece], workers: int) -> None:
        """Split the inputs by user."""
        waiting = [
            str(place) for place, piece in enumerate(pieces) if not is_staged(piece, plan.staged)
        ]
        arguments = (list(pieces), plan.staged, plan.rules.shards)
        with open_bar(
            "split by user", total=len(pieces), waiting=len(waiting), unit="piece", quiet=self.quiet
        ) as shown:
            # A few pieces take less time than starting workers.
            answers = (
                map(StagingWorker(*arguments), waiting)
                if len(waiting) <= _FEW_PIECES
                else map_items(waiting, StagingWorker, arguments, workers=workers)
            )
            for text in answers:
                read_answer(text)
                shown.update()

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr)

    def _say_inputs(self, plan: ShardPlan, pieces: Sequence[Piece]) -> None:
        for kind in self.inputs.paths():
            places = [
                plan.staged / piece.counts_name for piece in pieces if piece.source.kind == kind
            ]
            self._say(describe(kind, [InputCounts.load(path) for path in places]))
        self._say(f"as of {plan.rules.as_of:%Y-%m-%d %H:%M:%S} UTC, {plan.rules.shards} shards")

    def _forecast(
        self, plan: ShardPlan, forecaster: ForecasterSettings | None, workers: int
    ) -> tuple[list[ShardRecord], list[ShardRecord]]:
        """Do the remaining shards; return the records of all shards, and those made now."""
        shards = range(plan.rules.shards)
        found = [
            None if forecaster is None else ShardRecord.load(plan.record_path(k)) for k in shards
        ]
        done = [record for record in found if record is not None]
        waiting = [str(shard) for shard in shards if found[shard] is None]
        title = "count" if forecaster is None else "forecast"
        now: list[ShardRecord] = []
        with open_bar(
            title, total=len(shards), waiting=len(waiting), unit="shard", quiet=self.quiet
        ) as shown:
            arguments, gpus = (plan, forecaster), 0 if forecaster is None else forecaster.gpus
            for text in map_items(waiting, ShardWorker, arguments, workers=workers, gpus=gpus):
                record = read_answer(text)
                if record is not None:
                    now.append(record)
                    show_pace(shown, Pace.of(now), len(waiting) - len(now))
        return done + now, now

    def _publish(self, plan: ShardPlan, request: str, records: Sequence[ShardRecord]) -> None:
        done = sorted(records, key=lambda record: record.shard)
        if [record.shard for record in done] != list(range(plan.rules.shards)):
            raise EnvironmentProblemError(
                f"{len(done)} of {plan.rules.shards} shards are done; start the run again "
                "and it will continue"
            )
        rules = plan.rules
        manifest = Manifest(
            version=plan.version,
            request=request,
            date=rules.date.isoformat(),
            as_of=rules.as_of.isoformat(),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            bundle_id=rules.bundle_id,
            top_k=rules.top_k,
            shards=rules.shards,
            files=tuple(record.file for record in done if record.file is not None),
            dead_letters=tuple(r.dead_letters for r in done if r.dead_letters is not None),
            counts=dict(sum_counts(done)),
        )
        manifest.publish(self.output)
        show_table(self.output, manifest)
        self._tidy(manifest)

    def _tidy(self, published: Manifest) -> None:
        drop_old_versions(self.output, published, self.keep)
        shutil.rmtree(self.output / "_runs", ignore_errors=True)


def _listing(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of each file of an input."""
    stats = [(str(file), file.stat()) for file in list_files(path)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _fingerprint(*parts: Any) -> str:
    """Return 16 hexadecimal digits that identify values; the same on every machine."""
    text = to_json(parts, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
