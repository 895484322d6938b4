"""``adprior bench``: run a benchmark or an evaluation.

``adprior bench NAME`` is the module ``commands/NAME.py``; only the chosen one is imported.
"""

from __future__ import annotations

import argparse
import pkgutil

from adprior_bench import commands
from adprior_runtime.cli import read_purpose, run_command

EXAMPLE = """example:
  adprior bench server --help"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's name; what follows it are the benchmark's own options."""
    names = sorted(each.name.replace("_", "-") for each in pkgutil.iter_modules(commands.__path__))
    purposes = [f"  {name:<13} {read_purpose(_module(name))}" for name in names]
    parser.epilog = "\n".join(["benchmarks:", *purposes, "", EXAMPLE])
    parser.add_argument("benchmark", choices=names, metavar="BENCHMARK", help="one of those below")
    rest = parser.add_argument("options", nargs=argparse.REMAINDER, help="the benchmark's options")
    rest.required = False  # else argparse lists it as missing if no benchmark is given


def run(args: argparse.Namespace) -> int:
    """Run the chosen benchmark; return its exit code."""
    return run_command(f"adprior bench {args.benchmark}", _module(args.benchmark), args.options)


def _module(name: str) -> str:
    return f"{commands.__name__}.{name.replace('-', '_')}"
