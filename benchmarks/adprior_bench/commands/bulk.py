"""``adprior bench bulk``: measure adprior bulk: throughput, a second day, memory, cluster size.

Every figure comes from the command itself, as a user runs it, with its own Ray.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from adprior_bench.bulk.bulk_measurement import BulkBench
from adprior_bench.bulk.sizing import ASSUMPTIONS, MACHINES, size_cluster
from adprior_bench.report.terminal import figures_table
from adprior_build.data.column_map import ColumnMap
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import day, positive_integer, positive_number, share
from adprior_runtime.text.json_text import to_json
from adprior_runtime.text.times import read_time

EXAMPLE = """examples:
  adprior bench bulk --bundle demo/bundle --events events.parquet --profiles profiles.parquet \\
    --columns demo/columns.toml
  adprior bench bulk ... --only memory --memory-users 10000 200000"""

_PARTS: Final = ("throughput", "incremental", "memory")
_THROUGHPUT_COLUMNS: Final = (
    "engine", "workers", "users", "users_per_s", "scaling_efficiency", "rss_mb_per_worker",
    "exact_fraction", "skipped", "dead_letters",
)  # fmt: skip
_MEMORY_COLUMNS: Final = (
    "users", "forecast", "rss_mb_per_worker", "rss_mb_driver", "rss_mb_ray", "growth",
    "users_per_s",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the bundle that makes the forecasts")
    add("--events", type=Path, required=True, help="event log")
    add("--columns", type=Path, required=True, help="column map (TOML)")
    add("--profiles", type=Path, help="user profiles")
    add("--as-of", type=day, help="day of the forecasts, before today (the day after the log)")
    for option, default, text in (
        ("--workers", [1, 2], "numbers of workers (1 2)"),
        ("--memory-users", [2_000, 10_000], "sizes of made-up populations (2000 10000)"),
    ):
        add(option, type=positive_integer, nargs="+", default=default, metavar="N", help=text)
    add("--only", choices=_PARTS, nargs="+", default=_PARTS, help="measure only these (all)")
    add(
        "--active", type=share, default=0.05, metavar="SHARE",
        help="share of users with new events (0.05)",
    )  # fmt: skip
    add(
        "--daily", type=positive_number, default=20e6, metavar="USERS",
        help="users a day to size a cluster for (20e6)",
    )  # fmt: skip
    add(
        "--hours", type=positive_number, default=6.0, metavar="H",
        help="hours of the daily run (6)",
    )  # fmt: skip
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    columns = ColumnMap.load(args.columns)
    report: dict[str, Any] = {"cores": available_processors(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="adprior-bench-bulk-") as scratch:
        bench = BulkBench(
            bundle=args.bundle,
            events=args.events,
            profiles=args.profiles,
            columns_file=args.columns,
            columns=columns,
            as_of=choose_day(args.as_of, args.events, columns),
            workers=sorted(set(args.workers)),
            active_share=args.active,
            memory_users=sorted(set(args.memory_users)),
            scratch=Path(scratch),
        )
        if "throughput" in args.only:
            report["rows"] = bench.measure_throughput()
        if "incremental" in args.only:
            report["incremental"] = bench.measure_incremental()
        if "memory" in args.only:
            report["memory"] = bench.measure_memory()
    if sizes := _size_clusters(args, report["rows"]):
        report |= {"sizing": sizes, "assumptions": ASSUMPTIONS}
    if args.json:
        print(to_json(report, indent=2))
    else:
        print(report_text(report, daily=args.daily, hours=args.hours))
    return 0


def choose_day(given: date | None, events: Path, columns: ColumnMap) -> datetime:
    """Return the first instant of the day of the forecasts: given, or the day after the log.

    Raises:
        InvalidInputError: The next day is in the future, or the log's times cannot be read.
    """
    latest = datetime.now(UTC).date() - timedelta(days=1)
    chosen = min(_last_day(events, columns) + timedelta(days=1), latest) if given is None else given
    if chosen > latest:
        raise InvalidInputError(
            f"--as-of: found {chosen}, expected {latest} at the latest: a second run forecasts the "
            "next day, and adprior bulk accepts no day in the future"
        )
    return datetime.combine(chosen, time(), tzinfo=UTC)


def _last_day(events: Path, columns: ColumnMap) -> date:
    try:
        last = pc.max(pq.read_table(events, columns=[columns.events.time])[0]).as_py()
        return read_time(str(last)).date()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{events}: {' '.join(str(error).split())}") from error


def _size_clusters(
    args: argparse.Namespace, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Size a cluster of each machine from the run with the most workers."""
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


def report_text(report: dict[str, Any], *, daily: float, hours: float) -> str:
    """Return a report's tables."""
    parts = []
    if report["rows"]:
        parts.append(figures_table(report["rows"], _THROUGHPUT_COLUMNS))
    if "incremental" in report:
        found = report["incremental"]
        parts.append(
            f"a day later, {found['active_share']:.0%} of users active: {found['work_share']:.1%} "
            f"of {found['users']:,} users are forecast, in "
            f"{found['worker_seconds_share']:.1%} of the workers' time"
        )
    if "memory" in report:
        parts.append(figures_table(report["memory"], _MEMORY_COLUMNS))
    if "sizing" in report:
        parts.append(f"{daily:,.0f} users a day within {hours:g} hours:")
        parts.append(figures_table(report["sizing"], tuple(report["sizing"][0])))
        parts.append("\n".join(f"- {assumption}" for assumption in report["assumptions"]))
    return "\n\n".join(parts)
