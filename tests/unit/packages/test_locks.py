"""The locked versions satisfy pyproject.toml, and every install uses them."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "python3.11": set(EXTRAS) - {"gpu"},
    "python3.12": set(EXTRAS) - {"gpu"},
    "gpu_image": {"gpu", "torch"},
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_requirement_to_an_allowed_version(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line), line
    versions = dict(line.split("==") for line in lines)
    build = PROJECT["build-system"]["requires"]
    for item in [*build, *(item for extra in LOCKS[name] for item in EXTRAS[extra])]:
        requirement = Requirement(item)
        if requirement.name != PROJECT["project"]["name"]:
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), item


def test_the_gpu_image_gets_no_package_that_limits_protobuf() -> None:
    """A limit such as tritonclient's, below 7, would contradict an image with a newer protobuf."""
    locked = (ROOT / "locks" / "gpu_image.txt").read_text(encoding="utf-8").split()
    assert not [line for line in locked if line.startswith(("tritonclient==", "grpcio=="))]


def test_the_gpu_image_may_have_numpy_1() -> None:
    """pyarrow 24 and later need NumPy 2, which their metadata do not say."""
    locked = (ROOT / "locks" / "gpu_image.txt").read_text(encoding="utf-8").split()
    (version,) = [line.partition("==")[2] for line in locked if line.startswith("pyarrow==")]
    assert int(version.partition(".")[0]) < 24


def test_every_install_of_a_target_uses_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"(\$\(LOCKED\) )?(\S+)/bin/python\S* -m pip install", makefile)
    assert {place for prefix, place in installs if prefix} == {".venv", ".demo-venv"}
    # Without the lock: the tests on the newest versions, and the target that writes the lock.
    assert {place for prefix, place in installs if not prefix} == {".latest-venv", '"$$scratch'}
