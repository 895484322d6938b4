"""Installed packages read no file outside the wheel."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT
from support.processes import run

HATCH = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
PACKAGES = [ROOT / name for name in HATCH["wheel"]["packages"]]


def _modules() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def test_no_module_uses_its_own_path() -> None:
    names = {"__file__", "getsourcefile", "getfile", "__spec__"}
    found = [
        path
        for path, text in _modules()
        for node in ast.walk(ast.parse(text))
        if getattr(node, "id", getattr(node, "attr", None)) in names
    ]
    assert found == []


def test_no_module_reads_above_its_package() -> None:
    """Resources come from ``importlib.resources.files``."""
    found = [
        path
        for path, text in _modules()
        if "importlib.resources" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr == "parents"
    ]
    assert found == []


def test_modules_that_render_committed_files_need_a_checkout(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "adprior_runtime.repository.model_configs", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run this in the root of a checkout")
    assert not list(tmp_path.iterdir())
