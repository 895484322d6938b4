"""``adprior bench zone-loss``: what clients notice when a zone of servers is lost."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any, Final

from adprior_bench.open_loop.loop import CallRecord
from adprior_bench.open_loop.messages import few_messages
from adprior_bench.open_loop.phase_figures import LATE_MS, phase_figures, reasons_text
from adprior_bench.options import add_counts
from adprior_bench.report.terminal import figures_table
from adprior_bench.zones.simulated_zone import ZoneSettings
from adprior_bench.zones.traffic import Timetable, run_traffic
from adprior_bench.zones.zone_processes import FAULTS, KILLED, running_zones
from adprior_client import ClientConfig
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.terminal.options import positive_number
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior bench zone-loss
  adprior bench zone-loss --fault silent --zones 3 --servers 3 --rate 300 --deadline-ms 100

The clients are real. The servers are simulated: they speak the protocol, queue requests, and sleep
instead of computing, so that two processors carry a fleet. Of each zone, all servers are one
process, which is killed, or stopped so that it accepts connections and never answers."""

_QUEUE: Final = 64
"""A server refuses a request if so many wait already, as the shipped models do."""
_LOSS_S: Final = 2.0
"""The first seconds of the loss have a row of their own."""
_COLUMNS: Final = (
    "phase", "seconds", "calls", "without_forecast", "share_percent", "p50_ms", "p99_ms", "max_ms",
    "late_p99_ms", "reasons",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_counts(
        parser,
        ("--zones", 3, "zones; one is lost"),
        ("--servers", 2, "servers in each zone"),
        ("--workers", 2, "requests that a server works on at once"),
        ("--clients", 4, "clients, each with its own circuit breakers"),
        ("--candidates", 50, "candidates of each ranking"),
    )
    for option, default, text in (
        ("--service-ms", 20.0, "mean time of a request at a server; times are exponential"),
        ("--rate", 240.0, "calls a second, of all clients together"),
        ("--deadline-ms", 200.0, "deadline of a call"),
        ("--seconds", 10.0, "length of each phase: before, during and after the loss"),
    ):
        parser.add_argument(
            option, type=positive_number, default=default, metavar="X", help=f"{text} ({default:g})"
        )
    parser.add_argument(
        "--fault", choices=FAULTS, default=KILLED, help=f"how the zone is lost ({KILLED})"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the calls' times (0)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    phase_s = args.seconds
    timetable = Timetable(lost_s=phase_s, back_s=2 * phase_s, end_s=3 * phase_s)
    ports = free_ports(args.zones * args.servers)
    settings = [
        ZoneSettings(
            ports=ports[first : first + args.servers],
            workers=args.workers,
            service_s=args.service_ms / 1e3,
            longest_queue=_QUEUE,
            candidates=args.candidates,
        )
        for first in range(0, len(ports), args.servers)
    ]
    with running_zones(settings) as zones, few_messages():
        urls = tuple(url for zone in zones for url in zone.urls)
        config = ClientConfig(urls=urls, deadline_s=args.deadline_ms / 1e3)
        records = asyncio.run(
            run_traffic(
                zones,
                config,
                timetable,
                clients=args.clients,
                rate=args.rate,
                candidates=args.candidates,
                fault=args.fault,
                seed=args.seed,
            )
        )
    report = _report(records, timetable, args)
    print(to_json(report, indent=2) if args.json else _text(report))
    return 0


def _report(
    records: Sequence[CallRecord], timetable: Timetable, args: argparse.Namespace
) -> dict[str, Any]:
    capacity = args.zones * args.servers * args.workers / (args.service_ms / 1e3)
    left = capacity * (args.zones - 1) / args.zones
    spans = [
        ("before", 0.0, timetable.lost_s),
        ("just after the loss", timetable.lost_s, timetable.lost_s + _LOSS_S),
        ("zone away", timetable.lost_s + _LOSS_S, timetable.back_s),
        ("zone back", timetable.back_s, timetable.end_s),
    ]
    failed = [r.began_s for r in records if r.reason and r.began_s < timetable.back_s]
    return {
        "fault": args.fault,
        "load_before": args.rate / capacity,
        "load_without_zone": args.rate / left if left else None,
        "last_fallback_s": max((began - timetable.lost_s for began in failed), default=None),
        "phases": [
            phase_figures(name, [r for r in records if start <= r.began_s < stop], stop - start)
            for name, start, stop in spans
            if stop > start
        ],
    }


def _text(report: dict[str, Any]) -> str:
    rows = [row | {"reasons": reasons_text(row["reasons"])} for row in report["phases"]]
    lines = [figures_table(rows, _COLUMNS), ""]
    left = report["load_without_zone"]
    lines.append(
        f"servers busy {report['load_before']:.0%} before, "
        + (f"{left:.0%} without the zone" if left else "none left without the zone")
    )
    if max(row["late_p99_ms"] for row in report["phases"]) > LATE_MS:
        lines.append("calls began late: this machine is too slow or too busy for the rate")
    last = report["last_fallback_s"]
    lines.append(
        "no call fell back to base logits while the zone was away"
        if last is None
        else f"the last call that fell back began {last:.2f} s after the loss"
    )
    return "\n".join(lines)
