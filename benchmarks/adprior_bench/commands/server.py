"""``adprior bench server``: what a server carries, and where its time and CPU go."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from adprior_bench.server.connection import read_connection
from adprior_bench.server.in_process import start_workers
from adprior_bench.server.machine import describe_machine
from adprior_bench.server.measurement import Bench, Plan, measure_scenario
from adprior_bench.server.perf_analyzer import PerfAnalyzer, fetch_perf_analyzer, find_perf_analyzer
from adprior_bench.server.scenarios import Scenario, write_input_data
from adprior_bench.server.served import (
    Served,
    adopt_server,
    build_repository,
    collect_bundle,
    serve_repository,
)
from adprior_bench.server.stored_forecasts import ask_forecasts
from adprior_bench.server.sweep_command import run_sweep, sweep_table, write_tuning
from adprior_bench.server.workload import UserRequest, read_requests, write_requests
from adprior_build.repository.server_tuning import load_tuning
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.engines.processors import available_processors, threads_of_each
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
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

_TOGETHER: Final = (
    ("server_pid", "url"), ("client", "url"), ("tuning_output", "sweep"), ("p99_limit_ms", "sweep"),
    ("profiles", "events"),
)  # fmt: skip
"""Options that say nothing without the other."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    served = parser.add_mutually_exclusive_group()
    served.add_argument("--repository", type=Path, metavar="REPO", help="serve this repository")
    served.add_argument(
        "--url", metavar="HOST:PORT", help="gRPC of a server that runs; needs --bundle"
    )
    parser.add_argument("--bundle", type=Path, help="serve this bundle; or what --url serves")
    parser.add_argument("--tuning", type=Path, metavar="FILE", help="with --bundle: tuning (TOML)")
    parser.add_argument(
        "--server-pid", type=positive_integer, metavar="PID", help="with --url: measure its CPU"
    )
    parser.add_argument(
        "--client",
        type=Path,
        metavar="TOML",
        help="with --url: settings of the client: TLS, token, metadata",
    )
    parser.add_argument("--events", type=Path, help="ask users of this log (made-up users)")
    parser.add_argument("--profiles", type=Path, help="user profiles")
    parser.add_argument("--columns", type=Path, help="column map (TOML)")
    parser.add_argument(
        "--scenarios",
        type=Scenario,
        choices=[*Scenario],
        nargs="+",
        default=[*Scenario],
        metavar="NAME",
        help=f"of {', '.join(Scenario)} (all three)",
    )
    for option, kind, default, told in (
        ("--concurrencies", positive_integer, "1 2 4 8", "closed loops: requests in flight"),
        ("--shares", share, "0.5 0.7 0.9", "open loops: rates, as shares of the saturation"),
    ):
        parser.add_argument(option, type=kind, nargs="+", metavar="N", help=f"{told} ({default})")
    parser.add_argument(
        "--seconds", type=positive_number, metavar="S", help="of each load (5; of a sweep's too)"
    )
    parser.add_argument(
        "--rounds", type=positive_integer, metavar="N", help="times each is measured (3)"
    )
    parser.add_argument(
        "--users", type=positive_integer, metavar="N", help="different requests (200)"
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write the report there: HTML, Markdown, PNG"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="instead: try instances, threads and batching"
    )
    parser.add_argument(
        "--tuning-output",
        type=Path,
        metavar="FILE",
        help="with --sweep: write the best there, for `adprior build --tuning`",
    )
    parser.add_argument(
        "--p99-limit-ms",
        type=positive_number,
        metavar="MS",
        help="with --sweep: the best of those whose p99 at 70 %% load stays below (none)",
    )
    parser.add_argument(
        "--fetch-perf-analyzer",
        action="store_true",
        help="download perf_analyzer where none is found (17 MB, with pip)",
    )
    parser.add_argument("--json", action="store_true", help="rows, for machines")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    _check(args)
    analyzer = _analyzer(args)
    if args.bundle is None and args.repository is None:
        print(f"adprior bench server: perf_analyzer {analyzer.version} · {analyzer.binary}")
        return 0
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as directory:
        rows = (_sweep if args.sweep else _measure)(args, analyzer, Path(directory))
    if args.json:
        print(to_json(rows, indent=2))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    nothing = args.bundle is None and args.repository is None and args.url is None
    if nothing and not args.fetch_perf_analyzer:
        raise InvalidInputError("nothing to measure: give --bundle, --repository or --url")
    if args.repository is not None and args.bundle is not None:
        raise InvalidInputError("--bundle goes with --url or alone: a repository has its own")
    if args.url is not None and args.bundle is None:
        raise InvalidInputError("--url needs --bundle: what that server serves")
    for option, other in _TOGETHER:
        if getattr(args, option) is not None and not getattr(args, other):
            raise InvalidInputError(f"--{option.replace('_', '-')} goes with --{other}")
    if args.tuning is not None and (args.bundle is None or args.url is not None or args.sweep):
        raise InvalidInputError("--tuning goes with --bundle alone: what runs already is tuned")
    if args.sweep and (args.bundle is None or args.url is not None):
        raise InvalidInputError("--sweep needs --bundle alone: it starts servers of its own")
    if args.sweep and args.output is not None:
        raise InvalidInputError("--output does not go with --sweep; give --tuning-output")
    if (args.events is None) != (args.columns is None):
        raise InvalidInputError("--events and --columns go together")
    _check_outputs(args.output, args.tuning_output)
    if args.shares is not None and 0 in args.shares:
        raise InvalidInputError("--shares: found 0, expected shares above 0")


def _check_outputs(report: Path | None, tuning: Path | None) -> None:
    """Refuse places that could not be written, before minutes are spent."""
    from adprior_bench.report.write import REPORT_FILE  # noqa: PLC0415  plots

    if (
        report is not None
        and report.exists()
        and not (report / REPORT_FILE).is_file()
        and (not report.is_dir() or any(report.iterdir()))
    ):
        raise InvalidInputError(
            f"--output {report}: exists and is no earlier report (no {REPORT_FILE})"
        )
    if tuning is not None and tuning.is_dir():
        raise InvalidInputError(f"--tuning-output {tuning}: is a directory, expected a file")


def _analyzer(args: argparse.Namespace) -> PerfAnalyzer:
    if not args.fetch_perf_analyzer:
        return find_perf_analyzer()
    try:
        return find_perf_analyzer()
    except EnvironmentProblemError:
        return fetch_perf_analyzer()


def _plan(args: argparse.Namespace) -> Plan:
    values = _DEFAULTS | (_QUICK if args.quick else {})
    given = {name: getattr(args, name) for name in values if getattr(args, name) is not None}
    return Plan(**{**values, **given})


def _measure(args: argparse.Namespace, analyzer: PerfAnalyzer, scratch: Path) -> list[Any]:
    from adprior_bench.server.figures import make_report, show_report  # noqa: PLC0415  plots

    plan = _plan(args)
    with _served(args, scratch) as served:
        bundle = Bundle.open(served.bundle, (ADVERTISERS_DIRECTORY,))
        requests = read_requests(bundle, plan.users, args.events, args.profiles, args.columns)
        requests = ask_forecasts(requests, served.server.connection, bundle.bundle_id)
        rows = _measure_all(args, analyzer, served, requests, plan, scratch)
    about = {
        "bundle_id": bundle.bundle_id,
        "machine": describe_machine(),
        "perf_analyzer": analyzer.version,
        "engine": None if served.engine is None else asdict(served.engine),
        "users": "event log" if args.events is not None else "made up",
        "requests": len(requests),
        "seconds": plan.seconds,
        "rounds": plan.rounds,
    }
    shown = show_report(make_report(rows, about), args.output)
    if not args.json:
        print(shown)
    return rows


def _measure_all(
    args: argparse.Namespace,
    analyzer: PerfAnalyzer,
    served: Served,
    requests: Sequence[UserRequest],
    plan: Plan,
    scratch: Path,
) -> list[dict[str, Any]]:
    asked = write_requests(scratch / "requests.jsonl", requests)
    for scenario in args.scenarios:
        write_input_data(scratch / f"{scenario}.json", scenario, requests)
    with ExitStack() as stack:
        workers = None
        if served.engine is not None:
            workers = stack.enter_context(
                start_workers(
                    served.bundle,
                    asked,
                    count=served.engine.instances,
                    threads=threads_of_each(served.engine.instances, served.engine.threads),
                )
            )
        bar = stack.enter_context(
            tqdm(total=len(args.scenarios) * plan.loads(), unit="load", leave=False, disable=None)
        )
        bench = Bench(
            analyzer=analyzer,
            server=served.server,
            workers=workers,
            input_data=lambda scenario: scratch / f"{scenario}.json",
            progress=bar.update,
        )
        return [
            row for scenario in args.scenarios for row in measure_scenario(bench, scenario, plan)
        ]


@contextmanager
def _served(args: argparse.Namespace, scratch: Path) -> Iterator[Served]:
    """Start or adopt the server."""
    if args.url is not None:
        connection = read_connection(args.url, args.client)
        with adopt_server(connection, args.server_pid, args.bundle) as served:
            yield served
        return
    repository = args.repository
    if repository is None:
        tuning = None if args.tuning is None else load_tuning(args.tuning)
        repository = build_repository(args.bundle, scratch / "repository", tuning)
    bundle = collect_bundle(repository, scratch / "bundle")
    with serve_repository(repository, bundle) as served:
        yield served


def _sweep(args: argparse.Namespace, analyzer: PerfAnalyzer, scratch: Path) -> list[Any]:
    plan = _plan(args)
    if args.concurrencies is None and not args.quick:
        plan = replace(plan, concurrencies=[1, *(n * available_processors() for n in (2, 4))])
    bundle = Bundle.open(args.bundle)
    requests = read_requests(bundle, plan.users, args.events, args.profiles, args.columns)
    trials, best = run_sweep(args.bundle, requests, analyzer, plan, scratch, args.p99_limit_ms)
    shown = sweep_table(trials, best)
    if args.tuning_output is not None:
        command = f"adprior bench server --bundle {args.bundle.name} --sweep"
        write_tuning(args.tuning_output, best, command)
    if not args.json:
        print(shown)
        if args.tuning_output is not None:
            print(
                f"\nadprior build --bundle {args.bundle} --tuning {args.tuning_output} --output ..."
            )
    return [trial.row() | {"recommended": trial is best} for trial in trials]
