"""Measures ``adprior bulk``: throughput by workers and engine, a second day, memory by users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from adprior_bench.bulk.bulk_run import BulkRun, run_bulk
from adprior_bench.bulk.population import read_recent_users, write_active_day, write_population
from adprior_bench.server.running_server import build_repository, start_server
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.bundle import Bundle

_MEMORY_USERS_A_SHARD: Final = 625
_SHARDS: Final = 32
"""Many shards: the last ones, when some workers have nothing left to do, cost little."""

_SEED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkBench:
    """The inputs of all runs, and the numbers of workers and users to compare."""

    bundle: Path
    events: Path
    profiles: Path | None
    columns_file: Path
    columns: ColumnMap
    as_of: datetime
    workers: Sequence[int]
    active_share: float
    memory_users: Sequence[int]
    scratch: Path

    def measure_throughput(self) -> list[dict[str, Any]]:
        """Forecast every user of the log, by engine and number of workers."""
        rows: list[dict[str, Any]] = []
        repository = build_repository(self.bundle, self.scratch / "repository", None)
        with start_server(repository) as server:
            served = ["--url", *server.connection.urls]
            engines = {"in-process": self._in_process, "served": served}
            order = [(name, n) for name in engines for n in self.workers]
            for name, workers in tqdm(order, unit="run", desc="throughput", dynamic_ncols=True):
                output = self.scratch / f"{name}-{workers}"
                run = self._run_on_log(self.events, output, self.as_of, workers, engines[name])
                first = next((row for row in rows if row["engine"] == name), None)
                rows.append(_row(run, workers, first))
        return rows

    def measure_incremental(self) -> dict[str, Any]:
        """Forecast every user, and a day later those with new events."""
        output, workers = self.scratch / "incremental", max(self.workers)
        engine = self._in_process
        first = self._run_on_log(self.events, output, self.as_of, workers, engine).summary
        later = write_active_day(
            self.events,
            self.columns,
            self.scratch / "later",
            share=self.active_share,
            as_of=self.as_of,
            seed=_SEED,
        )
        tomorrow = self.as_of + timedelta(days=1)
        second = self._run_on_log(later, output, tomorrow, workers, engine).summary
        before, after = (sum(each["worker_seconds"].values()) for each in (first, second))
        return {
            "users": second["users"],
            "active_share": self.active_share,
            "forecast": second["forecast"],
            "skipped": second["skipped"],
            "work_share": second["forecast"] / second["users"],
            "worker_seconds_share": after / before,
        }

    def measure_memory(self) -> list[dict[str, Any]]:
        """Run a second day on populations of several sizes."""
        models = read_recent_users(self.events, self.profiles, self.columns, self.as_of)
        workers = max(self.workers)
        rows: list[dict[str, Any]] = []
        for users in tqdm(self.memory_users, unit="run", desc="memory", dynamic_ncols=True):
            inputs, output = write_population(
                self.scratch,
                models,
                users=users,
                shards=max(1, users // _MEMORY_USERS_A_SHARD),
                active_share=self.active_share,
                as_of=self.as_of,
                bundle_id=Bundle.open(self.bundle, ()).manifest.bundle_id,
            )
            run = self._run(["--users", str(inputs), *self._in_process], output, workers)
            rows.append(_row(run, workers, None) | _memory(run, rows))
        return rows

    @property
    def _in_process(self) -> list[str]:
        return ["--bundle", str(self.bundle)]

    def _run_on_log(
        self, events: Path, output: Path, as_of: datetime, workers: int, engine: Sequence[str]
    ) -> BulkRun:
        arguments = ["--events", str(events), "--columns", str(self.columns_file), *engine]
        if self.profiles is not None:
            arguments += ["--profiles", str(self.profiles)]
        return self._run([*arguments, "--shards", str(_SHARDS)], output, workers, as_of)

    def _run(
        self, arguments: list[str], output: Path, workers: int, as_of: datetime | None = None
    ) -> BulkRun:
        moment = (as_of or self.as_of).isoformat()
        arguments += ["--as-of", moment, "--workers", str(workers), "--output", str(output)]
        return run_bulk(arguments)


def _row(run: BulkRun, workers: int, first: dict[str, Any] | None) -> dict[str, Any]:
    """Return a run's row; its efficiency is relative to the engine's first run."""
    summary = run.summary
    rate = summary["users_per_s"]
    base = (first["users_per_s"] / first["workers"]) if first else rate and rate / workers
    return {
        "users": summary["users"],
        "workers": workers,
        "engine": summary["engine"],
        "users_per_s": rate,
        "scaling_efficiency": rate / (base * workers) if rate and base else None,
        "rss_mb_per_worker": summary["rss_mb_per_worker"],
        "skipped": summary["skipped"],
        "dead_letters": summary["dead_letters"],
        "forecast": summary["forecast"],
        "exact_fraction": summary["exact_fraction"],
        "wall_s": summary["wall_s"],
        "worker_seconds": summary["worker_seconds"],
    }


def _memory(run: BulkRun, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the resident memory of a run, and its growth since the first population."""
    memory = {
        "rss_mb_driver": run.driver_mb,
        "rss_mb_ray": run.ray_mb,
        "rss_mb_per_worker": run.summary["rss_mb_per_worker"],
    }
    first = earlier[0] if earlier else memory
    return memory | {"growth": sum(memory.values()) / sum(first[name] for name in memory) - 1}
