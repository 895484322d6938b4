"""The long form and its report; the demo's repository, served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.cli import main
from faults.sites import Kind, Site, open_site
from faults.traffic import DEMO
from faults.verdict import Verdict, format_verdicts


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-report", type=Path, metavar="FILE", help="write figures as JSON")


class Report:
    """What the suite found: figures by section, verdicts of faults."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.sections: dict[str, Any] = {}

    def to_document(self) -> dict[str, Any]:
        return {"faults": [each.to_document() for each in self.verdicts], **self.sections}


_REPORT = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash.setdefault(_REPORT, Report())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(_REPORT, None)
    if found is None or not (found.verdicts or found.sections):
        return
    terminalreporter.section("faults")
    if found.verdicts:
        terminalreporter.write_line(format_verdicts(found.verdicts))
    for name, section in found.sections.items():
        terminalreporter.write_line(f"\n{name}: {json.dumps(section, indent=2)}")
    if file := config.getoption("--faults-report", None):
        file.write_text(json.dumps(found.to_document(), indent=2) + "\n")


@pytest.fixture(scope="session")
def demo_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "repository"
    assert main(["build", "--bundle", str(DEMO / "bundle"), "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest,
    demo_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    kind = Kind(request.param)
    with open_site(kind, demo_repository, tmp_path_factory.mktemp(kind)) as opened:
        yield opened
