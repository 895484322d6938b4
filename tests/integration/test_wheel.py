"""The wheel in an environment of its own: what a user installs has all that it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
    """An environment with the wheel, and everybody else's packages borrowed from this one."""
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
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    return environment


def run(environment: Path, *command: str) -> str:
    program = [str(environment / "bin" / command[0]), *command[1:]]
    done = subprocess.run(program, check=False, capture_output=True, text=True, cwd=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_says_what_it_does(environment: Path) -> None:
    assert "make a Triton model repository" in run(environment, "adprior", "--help")


def test_it_builds_the_shipped_bundle(environment: Path, tmp_path: Path) -> None:
    bundle, output = str(ROOT / "demo" / "bundle"), tmp_path / "repository"
    run(environment, "adprior", "build", "--bundle", bundle, "--output", str(output))
    assert (output / "advertiser_ranking" / "config.pbtxt").is_file()


def test_every_module_is_there_and_imports(environment: Path) -> None:
    files = run(environment, "python", "-c", IMPORT_ALL, *PACKAGES).splitlines()
    found = {Path(*Path(file).relative_to(environment).parts[3:]) for file in files}
    folders = [next(ROOT.glob(f"*/{name}")) for name in PACKAGES]
    wanted = {
        file.relative_to(folder.parent)
        for folder in folders
        for file in folder.rglob("*.py")
        if file.parent != folder or file.name != "__init__.py"
    }
    assert wanted - found <= {file for file in wanted if file.match("adprior_runtime/triton/*.py")}
    assert found <= wanted
