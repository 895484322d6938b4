"""The report of the long form; servers with something between them and their clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from faults.fault_result import FaultResult, format_results
from faults.setups import Kind, Setup, open_setup


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-report", type=Path, metavar="FILE", help="write figures as JSON")


class Report:
    """Figures of each fault, and of other tests by section."""

    def __init__(self) -> None:
        self.results: list[FaultResult] = []
        self.sections: dict[str, Any] = {}

    def to_document(self) -> dict[str, Any]:
        return {"faults": [each.to_document() for each in self.results], **self.sections}


_REPORT = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash.setdefault(_REPORT, Report())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(_REPORT, None)
    if found is None or not (found.results or found.sections):
        return
    terminalreporter.section("faults")
    if found.results:
        terminalreporter.write_line(format_results(found.results))
    for name, section in found.sections.items():
        terminalreporter.write_line(f"\n{name}: {json.dumps(section, indent=2)}")
    if file := config.getoption("--faults-report", None):
        file.write_text(json.dumps(found.to_document(), indent=2) + "\n")


@pytest.fixture(scope="module")
def find_setup(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Setup]]:
    """Return a function that opens a setup, or returns the open one if it is of that kind."""
    with ExitStack() as stack:

        @lru_cache(maxsize=1)
        def find(kind: Kind) -> Setup:
            stack.close()
            setup = open_setup(kind, tiny_repository, tmp_path_factory.mktemp(kind))
            return stack.enter_context(setup)

        yield find
