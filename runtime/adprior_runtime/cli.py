"""The command ``adprior``: runs the subcommand's module, and prints each error as one line.

``adprior NAME`` is the module ``commands/NAME.py`` of one of the packages, with ``EXAMPLE``,
``add_arguments`` and ``run``. The one exception is ``adprior bench``: ``adprior_bench/bench.py``
runs ``adprior bench NAME`` from ``adprior_bench/commands/NAME.py``. ``pyproject.toml`` lists the
commands as entry points. Only the module of the given command is imported, so that each command
needs only its own extra.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Never, NoReturn

from adprior_runtime import __version__
from adprior_runtime.errors import AdpriorError

_GROUP: Final = "adprior.commands"
"""The entry points of ``pyproject.toml`` that name each command's module and the extra it needs."""

_ENVIRONMENT: Final = {
    "GRPC_VERBOSITY": "ERROR",  # else gRPC prints notes beside our line
    # Else waiting OpenMP threads (torch, LightGBM) spin, which makes training and tuning up to 20
    # times slower on a busy machine. The libraries read this when they load.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
"""Defaults of environment variables for every command."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (2 for bad input)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {command.name: command for command in entry_points(group=_GROUP)}
    if not arguments or arguments[0] not in commands:
        return _top_level(arguments, commands)
    name = arguments[0]
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        with _sigterm_interrupts():
            return run_command(f"adprior {name}", commands[name].module, arguments[1:])
    except AdpriorError as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("adprior_"):
            raise
        extra = commands[name].extras[0]
        problem = f"needs the package {error.name}: pip install 'adprior[{extra}]'"
    except BrokenPipeError:
        # The reader of our output has ended (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a directory that cannot be written: not a bug.
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except _Terminated:
        print(f"adprior {name}: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print(f"adprior {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"adprior {name}: {problem}", file=sys.stderr)
    return 2


def run_command(name: str, module: str, arguments: list[str]) -> int:
    """Run a command's module with its options; return its exit code.

    Args:
        name: The command as a user types it: ``adprior bench server``.
        module: The module with ``EXAMPLE``, ``add_arguments`` and ``run``; it is imported here.
        arguments: The options.
    """
    command = import_module(module)
    parser = _Parser(
        prog=name,
        description=_first_sentence(command.__doc__),
        epilog=command.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(arguments)))


def read_purpose(module: str) -> str:
    """Return the first line of a command's docstring, without an import: packages may be absent."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    file = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    return _first_sentence(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))


def _first_sentence(docstring: str | None) -> str:
    """Return the first line of a command's docstring, without the command's name before it."""
    return (docstring or "").partition("\n")[0].partition(": ")[2].removesuffix(".")


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does; ignore a second one."""
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
    """Prints what is wrong with the options as one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _top_level(arguments: list[str], commands: Mapping[str, EntryPoint]) -> int:
    if arguments and arguments[0] == "--version":
        print(f"adprior {__version__}")
        return 0
    if not commands:
        print(
            "adprior: adprior's commands are not registered; install adprior again "
            "(pip install --force-reinstall 'adprior[client]')",
            file=sys.stderr,
        )
        return 2
    width = max(map(len, commands))
    lines = [
        f"  {name:<{width}}  {read_purpose(commands[name].module)}" for name in sorted(commands)
    ]
    usage = "usage: adprior COMMAND [options]   (see adprior COMMAND --help)\n\n"
    text = usage + "\n".join(lines)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(text)
        return 0
    if arguments:
        print(f"adprior: unknown command {arguments[0]!r}\n", file=sys.stderr)
    print(text, file=sys.stderr)
    return 2
