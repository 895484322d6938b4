"""``adprior bench server``: measure throughput, latency and CPU of a server under load."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from adprior_bench.server.in_process import start_workers
from adprior_bench.server.machine import describe_machine
from adprior_bench.server.measurement import Bench, Plan
from adprior_bench.server.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from adprior_bench.server.running_server import (
    RunningServer,
    build_repository,
    collect_bundle,
    read_connection,
    start_server,
)
from adprior_bench.server.scenarios import Scenario, write_input_data
from adprior_bench.server.sweep import run_sweep, sweep_table, write_tuning
from adprior_bench.server.workload import add_forecasts, read_requests
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.tuning import load_tuning
from adprior_runtime.terminal.options import positive_integer, positive_number, share
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior bench server --fetch-perf-analyzer
  adprior bench server --bundle demo/bundle --output report
  adprior bench server --repository REPO --events events.parquet --profiles profiles.parquet \\
    --columns demo/columns.toml --output report
  adprior bench server --url HOST:8001 --client client.toml --bundle BUNDLE --json
  adprior bench server --bundle BUNDLE --sweep --tuning-output tuning.toml"""

_QUICK: Final = {"concurrencies": [1, 2], "shares": [0.5], "seconds": 0.5, "rounds": 1, "users": 16}
_DEFAULTS: Final = {
    "concurrencies": [1, 2, 4, 8], "shares": [0.5, 0.7, 0.9], "seconds": 5.0, "rounds": 3,
    "users": 200,
}  # fmt: skip

_NEEDS: Final = (
    ("server_pid", "url"), ("client", "url"), ("tuning_output", "sweep"), ("p99_limit_ms", "sweep"),
    ("profiles", "events"),
)  # fmt: skip
"""Options that have no meaning without another one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    server = parser.add_argument_group("the server")
    chosen = server.add_mutually_exclusive_group()
    chosen.add_argument("--repository", type=Path, metavar="REPO", help="serve this repository")
    chosen.add_argument(
        "--url", metavar="HOST:PORT",
        help="gRPC address of a running server; also a dns:///NAME:PORT or file:///PATH of one",
    )  # fmt: skip
    add = server.add_argument
    add("--bundle", type=Path, help="serve this bundle; with --url: the bundle that it serves")
    add("--tuning", type=Path, metavar="FILE", help="with --bundle: tuning file (TOML)")
    add(
        "--server-pid", type=positive_integer, metavar="PID",
        help="with --url: measure the CPU of this process",
    )  # fmt: skip
    add(
        "--client", type=Path, metavar="TOML",
        help="with --url: a client's settings; TLS, token and metadata are used",
    )  # fmt: skip
    add = parser.add_argument_group("the requests").add_argument
    add("--events", type=Path, help="event log of the users (default: made-up users)")
    add("--profiles", type=Path, help="user profiles")
    add("--columns", type=Path, help="column map (TOML)")
    add("--users", type=positive_integer, metavar="N", help="different requests (200)")
    scenarios = ", ".join(Scenario)
    add(
        "--scenarios", type=Scenario, choices=[*Scenario], nargs="+", default=[*Scenario],
        metavar="NAME", help=f"any of {scenarios} (all)",
    )  # fmt: skip
    add = parser.add_argument_group("the measurement").add_argument
    add(
        "--concurrencies", type=positive_integer, nargs="+", metavar="N",
        help="closed loops: requests in flight (1 2 4 8)",
    )  # fmt: skip
    add(
        "--shares", type=share, nargs="+", metavar="SHARE",
        help="open loops: rates as shares of the saturation throughput (0.5 0.7 0.9)",
    )  # fmt: skip
    add("--seconds", type=positive_number, metavar="S", help="seconds of each load (5)")
    add("--rounds", type=positive_integer, metavar="N", help="times each load is measured (3)")
    add("--quick", action="store_true", help="a few seconds only, to check that it works")
    add("--sweep", action="store_true", help="compare settings of instances, threads, batching")
    add(
        "--p99-limit-ms", type=positive_number, metavar="MS",
        help="with --sweep: recommend a setting whose p99 at 70 %% load is at most this (no limit)",
    )  # fmt: skip
    add = parser.add_argument_group("the output").add_argument
    add("--output", type=Path, metavar="DIR", help="write the report there: HTML, Markdown, PNG")
    add(
        "--tuning-output", type=Path, metavar="FILE",
        help="with --sweep: write the recommended setting for `adprior build --tuning`",
    )  # fmt: skip
    add("--json", action="store_true", help="print rows as JSON")
    add(
        "--fetch-perf-analyzer", action="store_true",
        help="download perf_analyzer if none is found (17 MB, with pip)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    _check(args)
    analyzer = find_perf_analyzer(fetch=args.fetch_perf_analyzer)
    if args.bundle is None and args.repository is None:
        print(f"adprior bench server: perf_analyzer {analyzer.version} · {analyzer.binary}")
        return 0
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as directory:
        rows = (_sweep if args.sweep else _measure)(args, analyzer, Path(directory))
    if args.json:
        print(to_json(rows, indent=2))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, and outputs that cannot be written."""
    nothing = args.bundle is None and args.repository is None and args.url is None
    if nothing and not args.fetch_perf_analyzer:
        raise InvalidInputError("nothing to measure: give --bundle, --repository or --url")
    if args.repository is not None and args.bundle is not None:
        raise InvalidInputError("--bundle cannot be given with --repository, which has a bundle")
    if args.url is not None and args.bundle is None:
        raise InvalidInputError("--url needs --bundle: the bundle that the server serves")
    for option, other in _NEEDS:
        if getattr(args, option) is not None and not getattr(args, other):
            raise InvalidInputError(f"--{option.replace('_', '-')} needs --{other}")
    if args.tuning is not None and (args.bundle is None or args.url is not None or args.sweep):
        raise InvalidInputError("--tuning needs --bundle alone: other servers have a tuning")
    if args.sweep and (args.bundle is None or args.url is not None):
        raise InvalidInputError("--sweep needs --bundle alone: it starts its own servers")
    if args.sweep and args.output is not None:
        raise InvalidInputError("--output cannot be given with --sweep; give --tuning-output")
    if (args.events is None) != (args.columns is None):
        raise InvalidInputError("--events and --columns must be given together")
    if args.shares is not None and 0 in args.shares:
        raise InvalidInputError("--shares: found 0, expected shares above 0")
    from adprior_bench.report.write import require_own_directory  # noqa: PLC0415  plots

    if args.output is not None:
        require_own_directory(args.output)
    if args.tuning_output is not None and args.tuning_output.is_dir():
        raise InvalidInputError(
            f"--tuning-output {args.tuning_output}: is a directory, expected a file"
        )


def _plan(args: argparse.Namespace) -> Plan:
    values = _DEFAULTS | (_QUICK if args.quick else {})
    given = {name: getattr(args, name) for name in values if getattr(args, name) is not None}
    return Plan(**{**values, **given})


def _measure(args: argparse.Namespace, analyzer: PerfAnalyzer, scratch: Path) -> list[Any]:
    from adprior_bench.server.server_report import make_report, show_report  # noqa: PLC0415  plots

    plan = _plan(args)
    with ExitStack() as stack:
        server, directory = stack.enter_context(_open_server(args, scratch))
        bundle = Bundle.open(directory, (ADVERTISERS_DIRECTORY,))
        requests = read_requests(bundle, plan.users, args.events, args.profiles, args.columns)
        requests = add_forecasts(requests, server.connection, bundle.manifest.bundle_id)
        for scenario in args.scenarios:
            write_input_data(scratch / f"{scenario}.json", scenario, requests)
        engine = server.read_engine_tuning()
        loads = len(args.scenarios) * plan.loads()
        bench = Bench(
            analyzer=analyzer,
            server=server,
            workers=stack.enter_context(start_workers(directory, requests, engine)),
            input_data=lambda scenario: scratch / f"{scenario}.json",
            progress=stack.enter_context(
                tqdm(total=loads, unit="load", leave=False, disable=None)
            ).update,
        )
        rows = [row for each in args.scenarios for row in bench.measure_scenario(each, plan)]
    about = {
        "bundle_id": bundle.manifest.bundle_id,
        "machine": describe_machine(),
        "perf_analyzer": analyzer.version,
        "engine": None if engine is None else asdict(engine),
        "users": "event log" if args.events is not None else "made up",
        "requests": len(requests),
        "seconds": plan.seconds,
        "rounds": plan.rounds,
    }
    shown = show_report(make_report(rows, about), args.output)
    if not args.json:
        print(shown)
    return rows


@contextmanager
def _open_server(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[RunningServer, Path]]:
    """Start a server, or connect to the running one; yield it and its bundle's directory."""
    if args.url is not None:
        connection = read_connection(args.url, args.client)
        with closing(RunningServer(connection, args.server_pid)) as server:
            yield server, args.bundle
        return
    repository = args.repository
    if repository is None:
        tuning = None if args.tuning is None else load_tuning(args.tuning)
        repository = build_repository(args.bundle, scratch / "repository", tuning)
    directory = collect_bundle(repository, scratch / "bundle")
    with start_server(repository) as server:
        yield server, directory


def _sweep(args: argparse.Namespace, analyzer: PerfAnalyzer, scratch: Path) -> list[Any]:
    plan = _plan(args)
    if args.concurrencies is None and not args.quick:
        plan = replace(plan, concurrencies=[1, *(n * available_processors() for n in (2, 4))])
    bundle = Bundle.open(args.bundle)
    requests = read_requests(bundle, plan.users, args.events, args.profiles, args.columns)
    trials, best = run_sweep(args.bundle, requests, analyzer, plan, scratch, args.p99_limit_ms)
    output = sweep_table(trials, best)
    if args.tuning_output is not None:
        command = f"adprior bench server --bundle {args.bundle.name} --sweep"
        write_tuning(args.tuning_output, best, command)
        build = f"adprior build --bundle {args.bundle} --tuning {args.tuning_output} --output ..."
        output = f"{output}\n\n{build}"
    if not args.json:
        print(output)
    return [trial.row() | {"recommended": trial is best} for trial in trials]
