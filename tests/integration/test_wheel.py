"""The wheel, installed in an environment of its own, is complete."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from support.paths import ROOT
from support.processes import run

PACKAGES = [
    Path(folder).name
    for folder in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "hatch"
    ]["build"]["targets"]["wheel"]["packages"]
]
IMPORT_ALL = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    places = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(places, package + "."):
        try:
            print(importlib.import_module(module.name).__file__)
        except ModuleNotFoundError as error:
            if error.name != "triton_python_backend_utils":  # only inside tritonserver
                raise
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; its dependencies come from this environment."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(place)], check=True, cwd=ROOT, capture_output=True)
    (wheel,) = place.glob("*.whl")
    environment = place / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(paths))
    return environment


def run_installed(environment: Path, *command: str) -> str:
    program = [str(environment / "bin" / command[0]), *command[1:]]
    done = run(*program, cwd=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_prints_its_help(environment: Path) -> None:
    assert "make a Triton model repository" in run_installed(environment, "adprior", "--help")


def test_the_command_builds_from_a_bundle(
    environment: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "repository"
    build = ["build", "--bundle", str(tiny_bundle), "--output", str(output)]
    run_installed(environment, "adprior", *build)
    assert (output / "advertiser_ranking" / "config.pbtxt").is_file()


def test_every_module_is_in_the_wheel_and_imports(environment: Path) -> None:
    files = run_installed(environment, "python", "-c", IMPORT_ALL, *PACKAGES).splitlines()
    found = {Path(*Path(file).relative_to(environment).parts[3:]) for file in files}
    folders = [next(ROOT.glob(f"*/{name}")) for name in PACKAGES]
    expected = {
        file.relative_to(folder.parent)
        for folder in folders
        for file in folder.rglob("*.py")
        if file.parent != folder or file.name != "__init__.py"
    }
    assert expected - found <= {
        file for file in expected if file.match("adprior_runtime/triton/*.py")
    }
    assert found <= expected
