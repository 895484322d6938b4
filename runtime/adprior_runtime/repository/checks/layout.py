"""Directories, versions and shims: what a server looks for where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES
from adprior_runtime.repository.checks.findings import Finding
from adprior_runtime.repository.model_configs import render_tree


def read_versions(repository: Path) -> Mapping[str, set[int]]:
    """Return the version directories of each of the contract's models that is there."""
    return {
        name: {int(d.name) for d in (repository / name).iterdir() if _is_version(d)}
        for name in MODEL_NAMES
        if (repository / name).is_dir()
    }


def check_layout(
    repository: Path, versions: Mapping[str, set[int]], *, serves_engine: bool
) -> Iterator[Finding]:
    """Check what lies where.

    Args:
        repository: The model repository.
        versions: Of its models.
        serves_engine: Whether it is for TensorRT-LLM, so that the engine's shim is not needed.
    """
    for entry in sorted(repository.iterdir()):
        if entry.is_dir() and entry.name not in MODEL_NAMES:
            told = "a directory that is no model of ours"
            yield Finding(entry.name, told, "none: the server takes it for a model, and stops")
    for name in MODEL_NAMES:
        if name not in versions:
            yield Finding(name, "no such directory", "the model, as `adprior build` writes it")
        elif versions[name] != {1}:
            found = ", ".join(map(str, sorted(versions[name]))) or "none"
            yield Finding(name, f"the versions {found}", "1 alone: the server serves the highest")
    for file, text in render_tree().items():
        if not file.endswith(".py") or Path(file).parts[0] not in versions:
            continue
        path = repository / file
        if path.is_file():
            if path.read_text(encoding="utf-8", errors="replace") != text:
                yield Finding(file, "another program", "the shim that `adprior build` writes")
        elif not (serves_engine and Path(file).parts[0] == LLM_ENGINE):
            yield Finding(file, "no such file", "the shim that loads the model's class")


def _is_version(directory: Path) -> bool:
    return directory.is_dir() and directory.name.isdecimal()
