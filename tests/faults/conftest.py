"""The report of the long form; the tiny bundle's repository, served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.fault_result import FaultResult, format_results
from faults.setups import Kind, Setup, open_setup
from support.servers import build_repository


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


@pytest.fixture(scope="session")
def tiny_repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tiny_bundle, tmp_path_factory.mktemp("tiny") / "repository")


@pytest.fixture(scope="module")
def setup(
    request: pytest.FixtureRequest,
    tiny_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Setup]:
    kind = Kind(request.param)
    with open_setup(kind, tiny_repository, tmp_path_factory.mktemp(kind)) as opened:
        yield opened
