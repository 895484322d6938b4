"""The command ``adprior``: finds the subcommand's module, and turns errors into one clear line.

A subcommand is a module with ``EXAMPLE``, ``add_arguments`` and ``run``. Only the one asked
for is imported, so that each needs no more than its own extra installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Never, NoReturn

from adprior_runtime import __version__
from adprior_runtime.errors import AdpriorError

__all__ = ["main"]

_COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    # command: (module, extra that brings what it needs, what it does)
    "catalogue": ("adprior_build.derive", "embedded", "derive a catalogue from an event log"),
    "train": ("adprior_build.train", "build", "fine-tune a causal LM on event logs"),
    "build": ("adprior_build.build", "embedded", "make a Triton model repository"),
    "fit-head": ("adprior_build.fit_head", "embedded", "fit the prior head on ranking logs"),
    "publish": ("adprior_build.publish.command", "bulk", "put stored forecasts in Redis"),
    "serve": ("adprior_runtime.serve", "embedded", "start tritonserver on a repository"),
    "predict": ("adprior_client.predict", "client", "forecast one user's advertisers"),
    "rank": ("adprior_client.rank", "client", "adjust one user's candidates"),
    "bulk": ("adprior_bulk.command", "bulk", "forecast for every active user, on Ray"),
    "bench": ("adprior_bench.bench", "bench", "run a benchmark or an evaluation"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (2 for bad input)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in _COMMANDS:
        return _top_level(arguments)
    name = arguments[0]
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it adds its notes to our one line
    try:
        with _terminated_in_order():
            return _run(name, arguments[1:])
    except AdpriorError as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("adprior_"):
            raise
        problem = f"needs the package {error.name}: pip install 'adprior[{_COMMANDS[name][1]}]'"
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a directory that may not be written: nothing of ours is at fault.
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except _Terminated:
        print(f"adprior {name}: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print(f"adprior {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"adprior {name}: {problem}", file=sys.stderr)
    return 2


def _run(name: str, arguments: list[str]) -> int:
    module, _, description = _COMMANDS[name]
    command = importlib.import_module(module)
    parser = _Parser(
        prog=f"adprior {name}",
        description=description,
        epilog=command.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(arguments)))


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Let SIGTERM undo what is half done, as Ctrl-C does; one more changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # a handler can be set in the main thread only
        return

    def terminate(*_: object) -> Never:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the options in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def _top_level(arguments: list[str]) -> int:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {help_}" for name, (_, _, help_) in _COMMANDS.items()]
    usage = "usage: adprior COMMAND [options]   (adprior COMMAND --help tells more)\n\n"
    text = usage + "\n".join(lines)
    if arguments and arguments[0] == "--version":
        print(f"adprior {__version__}")
        return 0
    if arguments and arguments[0] in {"-h", "--help"}:
        print(text)
        return 0
    if arguments:
        print(f"adprior: unknown command {arguments[0]!r}\n", file=sys.stderr)
    print(text, file=sys.stderr)
    return 2
