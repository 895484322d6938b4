"""What is installed reads nothing beside itself that the wheel does not carry."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
HATCH = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
PACKAGES = [ROOT / name for name in HATCH["wheel"]["packages"]]

_CLIMBS = {("repository/repository_builder.py", "package.parents")}
"""Modules that look above their package, after the wheel's own place: `model_repository` there."""


def _modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted(package.rglob("*.py"))


def _is_place_of_module(node: ast.AST) -> bool:
    """Tell whether a module asks where it lies."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name in {"__file__", "getsourcefile", "getfile", "__spec__"}


def test_no_module_goes_by_where_it_lies() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _is_place_of_module(node)
    ]
    assert found == []


def test_nothing_but_the_model_repository_is_looked_for_above_a_package() -> None:
    """Resources come from ``importlib.resources.files``; who climbs from there is known."""
    found = set()
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        if "importlib.resources" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr == "parents":
                found.add((f"{path.parent.name}/{path.name}", ast.unparse(node)))
    assert found == _CLIMBS
    assert HATCH["wheel"]["force-include"] == {"model_repository": "adprior_build/model_repository"}


def test_tools_that_render_committed_files_need_a_checkout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adprior_runtime.repository.model_configs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run this in the root of a checkout")
    assert not list(tmp_path.iterdir())
