"""The packages that an extra of pyproject.toml installs, with their own dependencies."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

_HIDE: Final = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ModuleNotFoundError(f"hidden: {{name}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def packages_of(extra: str) -> set[str]:
    """Return the names of all packages that ``pip install 'adprior[EXTRA]'`` brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found: set[str] = set()
    waiting = [Requirement(item) for item in extras[extra]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == project["name"]:
            waiting += [Requirement(item) for each in requirement.extras for item in extras[each]]
        elif name not in found:
            found.add(name)
            listed = [Requirement(item) for item in requires(name) or ()]
            waiting += [item for item in listed if _is_needed(item, requirement.extras or {""})]
    return found


def modules_without(extra: str) -> set[str]:
    """Return the installed top-level modules that an installation of the extra lacks."""
    brought = packages_of(extra) | {"adprior"}
    return {
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and not brought & {canonicalize_name(owner) for owner in owners}
    }


def code_that_hides(modules: Iterable[str]) -> str:
    """Return Python code after which these top-level modules cannot be imported."""
    return _HIDE.format(modules=set(modules))


def _is_needed(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
