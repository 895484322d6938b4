"""``adprior bench``: run a benchmark or an evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from adprior_bench.commands import (
    bulk,
    clients,
    drift,
    quality,
    search,
    server,
    simulate_log,
    soak,
    stored,
)

EXAMPLE = quality.EXAMPLE

_BENCHMARKS = {
    "search": search,
    "server": server,
    "clients": clients,
    "bulk": bulk,
    "quality": quality,
    "simulate-log": simulate_log,
    "stored": stored,
    "drift": drift,
    "soak": soak,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks."""
    chosen = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in _BENCHMARKS.items():
        module.add_arguments(
            chosen.add_parser(
                name,
                help=module.HELP,
                description=module.HELP,
                epilog=module.EXAMPLE,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


def run(args: argparse.Namespace) -> int:
    """Run one; return its exit code."""
    run_benchmark: Callable[[argparse.Namespace], int] = _BENCHMARKS[args.benchmark].run
    return run_benchmark(args)
