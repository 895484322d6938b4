"""``adprior bench soak``: hours of mixed load in minutes, with the memory of every process."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from adprior_bench.soak.memory import Growth, MemoryRecord, Sampler
from adprior_bench.soak.mixed_load import MixedLoad
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import ADVERTISER_DECODER
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.options import number_from_zero, positive_number
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

HELP = "a server under mixed load for a long time, and whether its memory grows"
EXAMPLE = """example:
  adprior bench soak --repository repository --users demo/users/*.json --plot soak.png"""

MOST_GROWTH: Final = 0.02
_SAMPLE_S: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="REPO", help="what `adprior build` made"
    )
    parser.add_argument(
        "--users", type=Path, nargs="+", required=True, metavar="FILE", help="contexts to vary"
    )
    for option, default, told in (
        ("--minutes", 15.0, "of load"),
        ("--rate", 20.0, "calls a second"),
    ):
        parser.add_argument(
            option,
            type=positive_number,
            default=default,
            metavar="N",
            help=f"{told} (default: %(default)g)",
        )
    parser.add_argument(
        "--warm-up-minutes",
        type=number_from_zero,
        default=3.0,
        metavar="N",
        help="growth counts from then on (default: %(default)g)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the memory, as PNG")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Soak; 1 where memory grew by 2 % or more, or a process ended."""
    if args.warm_up_minutes >= args.minutes:
        raise InvalidInputError(
            f"--warm-up-minutes {args.warm_up_minutes:g}: expected less than --minutes "
            f"{args.minutes:g}"
        )
    users = [_read_user(path) for path in args.users]
    record, outcomes = _soak(args, users)
    warm_up_s = 60 * args.warm_up_minutes
    growths = record.growth(warm_up_s)
    document = _document(args, growths, outcomes)
    shown = to_json(document, indent=2) if args.json else _format(document)
    if args.plot is not None:
        # Only where it is asked for: a second's import.
        from adprior_bench.soak.plot import draw_memory  # noqa: PLC0415
        from adprior_runtime.files.atomic import replace_file  # noqa: PLC0415

        with replace_file(args.plot) as fresh:
            fresh.write_bytes(draw_memory(record, warm_up_s))
    print(shown)
    return 0 if document["holds"] else 1


def _soak(
    args: argparse.Namespace, users: list[dict[str, Any]]
) -> tuple[MemoryRecord, list[dict[str, Any]]]:
    advertisers = _read_advertisers(args.repository)
    duration_s = 60 * args.minutes
    with ExitStack() as stack:
        server = stack.enter_context(_start(args.repository))
        sampler = Sampler(server.process.pid)
        load = stack.enter_context(
            MixedLoad(server.grpc_address, users, advertisers, rate_hz=args.rate)
        )
        bar = stack.enter_context(
            tqdm(total=round(duration_s), unit="s", desc="soak", leave=False, disable=None)
        )
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            if not sampler.sample():
                raise EnvironmentProblemError("a process of the server ended under the load")
            time.sleep(_SAMPLE_S)
            bar.update(round(duration_s - (end - time.monotonic())) - bar.n)
    outcomes = [
        {"kind": kind, "ended": ended, "calls": calls}
        for (kind, ended), calls in sorted(load.outcomes.items())
    ]
    calls = load.outcomes.total()
    answered = sum(n for (_, ended), n in load.outcomes.items() if ended == "answered")
    if 2 * answered < calls:
        raise EnvironmentProblemError(
            f"{answered:,} of {calls:,} calls were answered, too few to tell of the memory: "
            "ask less (--rate), or where nothing else runs"
        )
    return sampler.record, outcomes


def _start(repository: Path) -> TritonServer:
    grpc_port, http_port, metrics_port = free_ports(3)
    return TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    )


def _read_user(path: Path) -> dict[str, Any]:
    try:
        user = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InvalidInputError(f"{path}: not JSON: {error}") from error
    if not isinstance(user, dict):
        raise InvalidInputError(f"{path}: found no object, expected a user context")
    return user


def _read_advertisers(repository: Path) -> list[tuple[int, str]]:
    bundle = Bundle.open(repository / ADVERTISER_DECODER / "1" / "bundle", [ADVERTISERS_DIRECTORY])
    advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
    return [
        (int(advertiser_id), advertisers.name(row).decode())
        for row, advertiser_id in enumerate(advertisers.ids)
    ]


def _document(
    args: argparse.Namespace, growths: list[Growth], outcomes: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "minutes": args.minutes,
        "warm_up_minutes": args.warm_up_minutes,
        "rate": args.rate,
        "calls": sum(row["calls"] for row in outcomes),
        "outcomes": outcomes,
        "memory": [
            {
                "process": growth.process,
                "first_mib": growth.first_mib,
                "last_mib": growth.last_mib,
                "peak_mib": growth.peak_mib,
                "growth": growth.share,
            }
            for growth in growths
        ],
        "most_growth": MOST_GROWTH,
        "holds": growths[-1].share < MOST_GROWTH,
    }


def _format(document: dict[str, Any]) -> str:
    calls: list[Column] = [("calls", "left"), ("ended", "left"), ("number", "right")]
    memory: list[Column] = [
        ("process", "left"),
        ("after warm-up", "right"),
        ("at the end", "right"),
    ]
    memory += [("peak", "right"), ("growth", "right")]
    outcomes = [[row["kind"], row["ended"], f"{row['calls']:,}"] for row in document["outcomes"]]
    rows = [
        [
            row["process"],
            *(f"{row[name]:.1f} MiB" for name in ("first_mib", "last_mib", "peak_mib")),
            f"{row['growth']:+.2%}",
        ]
        for row in document["memory"]
    ]
    verdict = "holds" if document["holds"] else "does not hold"
    told = f"grows by less than {document['most_growth']:.0%} after the warm-up: {verdict}"
    return f"{format_table(calls, outcomes)}\n\n{format_table(memory, rows)}\n\n{told}"
