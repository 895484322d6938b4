"""``adprior bench rolling``: what callers notice while every server gets a new bundle."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_bench.open_loop.loop import CallRecord
from adprior_bench.open_loop.messages import few_messages
from adprior_bench.open_loop.phase_figures import LATE_MS, phase_figures, reasons_text
from adprior_bench.options import add_counts
from adprior_bench.report.terminal import figures_table
from adprior_bench.rolling.bundle_answers import BundleAnswers, ask_server
from adprior_bench.rolling.callers import MIXED, Callers, Load
from adprior_bench.rolling.fleet import Fleet, start_on_free_ports
from adprior_bench.rolling.gentle_start import require_right
from adprior_bench.rolling.replacement import Phase, Span, replace_all
from adprior_bench.server.machine import describe_machine
from adprior_bench.server.running_server import collect_bundle
from adprior_bench.server.workload import UserRequest, read_requests
from adprior_client import ClientConfig
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import positive_number, share
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior build --bundle BUNDLE --output blue
  adprior build --bundle BUNDLE --beam-width 24 --output green
  adprior bench rolling --old blue --new green
  adprior bench rolling --old blue --new green --servers 3 --rate 50 --live-share 0 --json

All servers are real and run on this machine. The clients follow a file that lists them. Most calls
bring a forecast, as with stored forecasts: when half of the servers have the new bundle, the
callers get its forecasts."""

_COLUMNS: Final = (
    "phase", "seconds", "busy_percent", "calls", "failed", "mixed", "p50_ms", "p99_ms", "max_ms",
    "late_p99_ms", "reasons",
)  # fmt: skip
_REPLACEMENT: Final = "the whole replacement"
_LONGEST_DISCOVERY_S: Final = 5.0
"""The clients' default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A replacement and its calls.

    Attributes:
        old: The answers of the bundle before.
        new: Those of the bundle after.
        callers: Who called, with their records.
        spans: What happened when.
    """

    old: BundleAnswers
    new: BundleAnswers
    callers: Callers
    spans: Sequence[Span]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--old", type=Path, required=True, metavar="REPO", help="repository of the first servers")
    add("--new", type=Path, required=True, metavar="REPO", help="repository that replaces it")
    add_counts(
        parser,
        ("--servers", 5, "servers, two or more; each is replaced"),
        ("--clients", 4, "clients, each with its own connections and circuit breakers"),
        ("--users", 32, "different requests"),
    )
    for option, number, text in (
        ("--rate", 200.0, "calls a second, of all clients together"),
        ("--deadline-ms", 1000.0, "deadline of a call"),
        ("--drain-seconds", 6.0, "how long a server that has left the list serves on"),
        ("--quiet-seconds", 20.0, "length of the quiet times before and after the replacement"),
    ):
        add(option, type=positive_number, default=number, metavar="X", help=f"{text} ({number:g})")
    add(
        "--live-share", type=share, default=0.05, metavar="SHARE",
        help="share of the calls that ask for a live forecast (0.05); 0 for a large model",
    )  # fmt: skip
    add(
        "--gentle-start",
        action="store_true",
        help="start new servers on idle processors (SCHED_IDLE), so that they delay no call; needs "
        "CAP_SYS_NICE (root) or a high limit RLIMIT_NICE (20 at the usual priority)",
    )
    add("--seed", type=int, default=0, help="seed of the calls' times (0)")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    if args.servers < 2:
        raise InvalidInputError(
            f"--servers: found {args.servers}, expected 2 or more: forecasts of either bundle need "
            "a server"
        )
    if args.gentle_start:
        require_right()
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as scratch, few_messages():
        report = _report(_measure(args, Path(scratch)), args)
    print(to_json(report, indent=2) if args.json else _text(report))
    return 0


def _measure(args: argparse.Namespace, scratch: Path) -> _Measured:
    requests = _read_requests(args, scratch)
    with_live = args.live_share > 0
    with start_on_free_ports(args.new) as server:
        new = ask_server(server.grpc_address, requests, with_live=with_live)
    load = Load(
        clients=args.clients,
        servers=args.servers,
        rate=args.rate,
        live_share=args.live_share,
        seed=args.seed,
    )
    listing, is_gentle = scratch / "servers", args.gentle_start
    with Fleet(args.old, args.servers, listing, is_gentle=is_gentle) as fleet:
        old = ask_server(fleet.first.grpc_address, requests, with_live=with_live)
        config = ClientConfig(
            urls=(fleet.url,),
            deadline_s=args.deadline_ms / 1e3,
            # Clients must have left a server before its drain is over.
            discovery_interval_s=min(_LONGEST_DISCOVERY_S, args.drain_seconds / 2),
        )
        with Callers(config, load, requests, old=old, new=new) as callers:
            spans = replace_all(
                fleet,
                callers,
                args.new,
                args.servers,
                drain_s=args.drain_seconds,
                quiet_s=args.quiet_seconds,
            )
    return _Measured(old=old, new=new, callers=callers, spans=spans)


def _read_requests(args: argparse.Namespace, scratch: Path) -> list[UserRequest]:
    """Check that the bundles differ, and draw requests for the advertisers of the old one."""
    old, new = (
        Bundle.open(collect_bundle(repository, scratch / name), (ADVERTISERS_DIRECTORY,))
        for name, repository in (("old", args.old), ("new", args.new))
    )
    if old.manifest.bundle_id == new.manifest.bundle_id:
        raise InvalidInputError(
            f"--new {args.new}: bundle {new.manifest.bundle_id}, which --old has too; expected "
            "another one"
        )
    return read_requests(old, args.users, None, None, None)


def _report(measured: _Measured, args: argparse.Namespace) -> dict[str, Any]:
    records, start = measured.callers.records, measured.callers.start
    others = [span for span in measured.spans if span.phase is not Phase.QUIET]
    rows = [_row(phase, records, start, _of(measured.spans, phase)) for phase in Phase]
    rows.append(_row(_REPLACEMENT, records, start, others))
    return {
        "old_bundle": measured.old.bundle_id,
        "new_bundle": measured.new.bundle_id,
        "servers": args.servers,
        "replaced": len(_of(measured.spans, Phase.LEAVING)),
        "rate": args.rate,
        "live_share": args.live_share,
        "gentle_start": args.gentle_start,
        "answered": dict(measured.callers.answered),
        "failed": sum(bool(each.reason) and each.reason != MIXED for each in records),
        "mixed": sum(each.reason == MIXED for each in records),
        "p99_ratio": rows[-1]["p99_ms"] / rows[0]["p99_ms"],
        "machine": describe_machine(),
        "phases": rows,
    }


def _of(spans: Sequence[Span], phase: Phase) -> list[Span]:
    return [span for span in spans if span.phase is phase]


def _row(
    name: str, records: Sequence[CallRecord], start: float, spans: Sequence[Span]
) -> dict[str, Any]:
    """Return the figures of the calls that began in one of the spans."""
    chosen = [
        record
        for record in records
        if any(span.start_s <= start + record.began_s < span.stop_s for span in spans)
    ]
    seconds = [span.stop_s - span.start_s for span in spans]
    row = phase_figures(name, chosen, sum(seconds))
    mixed = row["reasons"].get(MIXED, 0)
    busy = sum(span.busy * length for span, length in zip(spans, seconds, strict=True))
    del row["share_percent"]
    return row | {
        "failed": row.pop("without_forecast") - mixed,
        "mixed": mixed,
        "busy_percent": 100 * busy / sum(seconds),
    }


def _text(report: dict[str, Any]) -> str:
    rows = [row | {"reasons": reasons_text(row["reasons"])} for row in report["phases"]]
    machine = report["machine"]
    answered = report["answered"]
    lines = [
        f"{report['servers']} servers, {report['rate']:g} calls/s, "
        f"{report['live_share']:.0%} of them with a live forecast; {machine['processor']}, "
        f"{machine['cpus']} CPUs",
        "",
        figures_table(rows, _COLUMNS),
        "",
        f"{report['replaced']} servers replaced; answers by bundle: "
        + ", ".join(f"{bundle} {number:,}" for bundle, number in answered.items()),
        f"failed calls: {report['failed']}; answers that mix bundles: {report['mixed']}",
        f"p99 of the whole replacement: {report['p99_ratio']:.2f} times the quiet p99",
    ]
    if max(row["late_p99_ms"] for row in report["phases"]) > LATE_MS:
        lines.append("calls began late: this machine is too slow or too busy for the rate")
    return "\n".join(lines)
