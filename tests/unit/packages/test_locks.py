"""The locked versions are those that pyproject.toml admits, and every install takes them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "python3.11": set(EXTRAS) - {"gpu"},
    "python3.12": set(EXTRAS) - {"gpu"},
    "gpu_image": {"gpu", "client"},
}


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.partition("==")[::2] for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_requirement_in_a_version_that_is_admitted(name: str) -> None:
    versions = locked(name)
    build = PROJECT["build-system"]["requires"]
    wanted = [*build, *(item for extra in LOCKS[name] for item in EXTRAS[extra])]
    for item in wanted:
        requirement = Requirement(item)
        if requirement.name != PROJECT["project"]["name"]:
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), item


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_exact_versions_alone(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][a-z0-9.]*", line), line


def test_every_install_of_a_target_takes_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"(\$\(LOCKED\) )?(\S+)/bin/python\S* -m pip install", makefile)
    locked = {place for prefix, place in installs if prefix}
    # The others: the newest versions, to see what is coming, and what resolves the lock itself.
    others = {place for prefix, place in installs if not prefix}
    assert locked == {".venv", ".demo-venv"}
    assert others == {".latest-venv", '"$$scratch'}
