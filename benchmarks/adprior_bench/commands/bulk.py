"""``adprior bench bulk``: what ``adprior bulk`` does on this machine, and what that tells of more.

Every figure is of the command itself, run as a user runs it, on a Ray of its own.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from adprior_bench.bulk.figures import report_text
from adprior_bench.bulk.population import read_recent_users, write_active_day, write_population
from adprior_bench.bulk.runs import BulkRun, run_bulk
from adprior_bench.bulk.sizing import ASSUMPTIONS, MACHINES, size_cluster
from adprior_build.data.column_map import ColumnMap
from adprior_build.repository.repository_builder import fill_repository
from adprior_runtime.bundle import Bundle
from adprior_runtime.engines.processors import available_processors
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.options import day, positive_integer, positive_number, share
from adprior_runtime.text.json_text import to_json
from adprior_runtime.text.times import read_time

EXAMPLE = """examples:
  adprior bench bulk --bundle demo/bundle --events events.parquet --profiles profiles.parquet \\
    --columns demo/columns.toml
  adprior bench bulk ... --only memory --memory-users 10000 200000"""

_PARTS: Final = ("throughput", "incremental", "memory")
_MEMORY_USERS_A_SHARD: Final = 625
_SHARDS: Final = 32
_SEED: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    for name in ("bundle", "events", "columns"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="as adprior bulk takes it")
    parser.add_argument("--profiles", type=Path, help="as adprior bulk takes it")
    parser.add_argument(
        "--as-of",
        type=day,
        help="day of the forecasts, yesterday at the latest (the day after the log)",
    )
    parser.add_argument(
        "--workers", type=positive_integer, nargs="+", default=[1, 2], metavar="N", help="(1 2)"
    )
    parser.add_argument("--only", choices=_PARTS, nargs="+", default=_PARTS, help="(all)")
    parser.add_argument(
        "--active", type=share, default=0.05, metavar="SHARE", help="users with news (0.05)"
    )
    parser.add_argument(
        "--memory-users",
        type=positive_integer,
        nargs="+",
        default=[2_000, 10_000],
        metavar="N",
        help="sizes of populations, --active of them due (2000 10000)",
    )
    parser.add_argument(
        "--daily", type=positive_number, default=20e6, metavar="USERS", help="to size for (20e6)"
    )
    parser.add_argument(
        "--hours", type=positive_number, default=6.0, metavar="H", help="of the daily run (6)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    bench = _Bench.of(args)
    report: dict[str, Any] = {"cores": available_processors(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="adprior-bench-bulk-") as scratch:
        directory = Path(scratch)
        if "throughput" in args.only:
            report["rows"] = bench.throughput(directory)
        if "incremental" in args.only:
            report["incremental"] = bench.incremental(directory)
        if "memory" in args.only:
            report["memory"] = bench.memory(directory)
    if sized := _sizing(args, report["rows"]):
        report |= {"sizing": sized, "assumptions": ASSUMPTIONS}
    if args.json:
        print(to_json(report, indent=2))
    else:
        print(report_text(report, daily=args.daily, hours=args.hours))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What is measured with what."""

    bundle: Path
    events: Path
    profiles: Path | None
    columns_file: Path
    columns: ColumnMap
    as_of: datetime
    workers: Sequence[int]
    active_share: float
    memory_users: Sequence[int]

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Bench:
        columns = ColumnMap.load(args.columns)
        return cls(
            bundle=args.bundle,
            events=args.events,
            profiles=args.profiles,
            columns_file=args.columns,
            columns=columns,
            as_of=_choose_day(args.as_of, args.events, columns),
            workers=sorted(set(args.workers)),
            active_share=args.active,
            memory_users=sorted(set(args.memory_users)),
        )

    def throughput(self, directory: Path) -> list[dict[str, Any]]:
        """Forecast every user of the log, by engine and number of workers."""
        rows: list[dict[str, Any]] = []
        with _served(self.bundle, directory / "repository") as url:
            engines = {"in-process": ["--bundle", str(self.bundle)], "served": ["--url", url]}
            order = [(name, n) for name in engines for n in self.workers]
            for name, workers in tqdm(order, unit="run", desc="throughput", dynamic_ncols=True):
                output = directory / f"{name}-{workers}"
                run = self._run(self.events, output, self.as_of, workers, engines[name])
                rows.append(_row(run, workers, _base(rows, name)))
        return rows

    def incremental(self, directory: Path) -> dict[str, Any]:
        """Forecast every user, and a day later those who have news."""
        output, workers = directory / "incremental", max(self.workers)
        engine = ["--bundle", str(self.bundle)]
        first = self._run(self.events, output, self.as_of, workers, engine).summary
        later = write_active_day(
            self.events,
            self.columns,
            directory / "later",
            share=self.active_share,
            as_of=self.as_of,
            seed=_SEED,
        )
        tomorrow = self.as_of + timedelta(days=1)
        second = self._run(later, output, tomorrow, workers, engine).summary
        spent = [sum(one["worker_seconds"].values()) for one in (first, second)]
        return {
            "users": second["users"],
            "active_share": self.active_share,
            "forecast": second["forecast"],
            "skipped": second["skipped"],
            "work_share": second["forecast"] / second["users"],
            "worker_seconds_share": spent[1] / spent[0],
        }

    def memory(self, directory: Path) -> list[dict[str, Any]]:
        """Do a day's run over populations of several sizes."""
        models = read_recent_users(self.events, self.profiles, self.columns, self.as_of)
        rows: list[dict[str, Any]] = []
        for users in tqdm(self.memory_users, unit="run", desc="memory", dynamic_ncols=True):
            inputs, output = write_population(
                directory,
                models,
                users=users,
                shards=max(1, users // _MEMORY_USERS_A_SHARD),
                active_share=self.active_share,
                as_of=self.as_of,
                bundle_id=Bundle.open(self.bundle, ()).bundle_id,
            )
            arguments = ["--users", str(inputs), "--bundle", str(self.bundle)]
            arguments += ["--as-of", self.as_of.isoformat(), "--workers", str(max(self.workers))]
            run = run_bulk([*arguments, "--output", str(output)])
            rows.append(_row(run, max(self.workers), None) | _memory(run, rows))
        return rows

    def _run(
        self, events: Path, output: Path, as_of: datetime, workers: int, engine: Sequence[str]
    ) -> BulkRun:
        arguments = ["--events", str(events), "--columns", str(self.columns_file), *engine]
        if self.profiles is not None:
            arguments += ["--profiles", str(self.profiles)]
        arguments += ["--as-of", as_of.isoformat(), "--workers", str(workers)]
        arguments += ["--shards", str(_SHARDS)]  # many, so that the last ones cost little
        return run_bulk([*arguments, "--output", str(output)])


@contextmanager
def _served(bundle: Path, repository: Path) -> Iterator[str]:
    """Serve a bundle on this machine; yield the address."""
    repository.mkdir()
    fill_repository(repository, Bundle.open(bundle))
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(int(free.getsockname()[1]))
    with TritonServer.start(
        repository, grpc_port=ports[0], http_port=ports[1], metrics_port=ports[2]
    ) as server:
        yield server.grpc_address


def _row(run: BulkRun, workers: int, base: dict[str, Any] | None) -> dict[str, Any]:
    told = run.summary
    rate = told["users_per_s"]
    alone = base["users_per_s"] / base["workers"] if base else rate / workers if rate else None
    return {
        "users": told["users"],
        "workers": workers,
        "engine": told["engine"],
        "users_per_s": rate,
        "scaling_efficiency": rate / (alone * workers) if rate and alone else None,
        "rss_mb_per_worker": told["rss_mb_per_worker"],
        "skipped": told["skipped"],
        "dead_letters": told["dead_letters"],
        "forecast": told["forecast"],
        "exact_fraction": told["exact_fraction"],
        "wall_s": told["wall_s"],
        "worker_seconds": told["worker_seconds"],
    }


def _base(rows: Sequence[dict[str, Any]], engine: str) -> dict[str, Any] | None:
    return next((row for row in rows if row["engine"] == engine), None)


def _memory(run: BulkRun, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    held = {
        "rss_mb_driver": run.driver_mb,
        "rss_mb_ray": run.ray_mb,
        "rss_mb_per_worker": run.summary["rss_mb_per_worker"],
    }
    first = before[0] if before else held
    total = sum(held.values())
    return held | {"growth": total / sum(first[name] for name in held) - 1}


def _sizing(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    measured = [row for row in rows if row["engine"] == "in-process" and row["users_per_s"]]
    if not measured:
        return []
    best = max(measured, key=lambda row: row["workers"])
    return [
        size_cluster(
            users=args.daily,
            users_per_s=best["users_per_s"] / best["workers"],
            rss_mb=best["rss_mb_per_worker"],
            hours=args.hours,
            machine=machine,
        )
        for machine in MACHINES
    ]


def _choose_day(asked: date | None, events: Path, columns: ColumnMap) -> datetime:
    """Return the first instant of the day of the forecasts; a day later must have come, too.

    Raises:
        InvalidInputError: It has not, or the log's times cannot be read.
    """
    latest = datetime.now(UTC).date() - timedelta(days=1)
    if asked is None:
        return min(_day_after(events, columns), _start(latest))
    if asked > latest:
        raise InvalidInputError(
            f"--as-of: found {asked}, expected {latest} at the latest: a second run is of the day "
            "after, and adprior bulk takes no day from the future"
        )
    return _start(asked)


def _start(of: Any) -> datetime:
    return datetime.combine(of, time(), tzinfo=UTC)


def _day_after(events: Path, columns: ColumnMap) -> datetime:
    """Return the first instant after the day of the log's last event."""
    try:
        last = pc.max(pq.read_table(events, columns=[columns.events.time])[0]).as_py()
        found = read_time(str(last))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{events}: {' '.join(str(error).split())}") from error
    return _start(found.date() + timedelta(days=1))
