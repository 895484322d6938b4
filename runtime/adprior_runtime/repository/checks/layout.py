"""Checks the directories, versions, shims and file modes of a repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES
from adprior_runtime.files.file_modes import find_writable
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.model_configs import render_tree


def read_versions(repository: Path) -> Mapping[str, set[int]]:
    """Return the version directories of each of the contract's models that is there."""
    return {
        name: {int(path.name) for path in (repository / name).iterdir() if _is_version(path)}
        for name in MODEL_NAMES
        if (repository / name).is_dir()
    }


def check_layout(
    repository: Path, versions: Mapping[str, set[int]], level: Level, *, serves_engine: bool
) -> Iterator[Finding]:
    """Check that all directories and shims exist.

    A repository for TensorRT-LLM does not need the shim of ``llm_engine``.
    """
    for entry in sorted(repository.iterdir()):
        if entry.is_dir() and not (entry / "config.pbtxt").is_file():
            if entry.name in MODEL_NAMES:
                continue  # the check of the configurations reports it
            found = "a directory without config.pbtxt"
            expected = "models only: the server would load it as a model, and stop"
            yield Finding(entry.name, found, expected, "remove it", may_pass=True)
    for name in MODEL_NAMES:
        if name not in versions:
            expected = "the model, as `adprior build` writes it"
            yield Finding(name, "no such directory", expected, may_pass=True)
        elif 1 not in versions[name] or (level is Level.FULL and len(versions[name]) > 1):
            found = ", ".join(map(str, sorted(versions[name]))) or "none"
            expected = "only version 1: the server serves the highest version"
            yield Finding(name, f"the versions {found}", expected, may_pass=True)
    for file, text in render_tree().items():
        model = Path(file).parts[0]
        if not file.endswith(".py") or model not in versions:
            continue
        path = repository / file
        if not path.is_file():
            # Without the shim the server reports nothing, and waits for the model for ever.
            if not (serves_engine and model == LLM_ENGINE):
                expected = "the shim that loads the model's class"
                yield Finding(file, "no such file", expected, may_pass=True)
        elif level is Level.FULL and path.read_text("utf-8", errors="replace") != text:
            yield Finding(file, "another program", "the shim that `adprior build` writes")


def check_modes(repository: Path) -> Iterator[Finding]:
    """Check that no other user of the machine can write the repository."""
    if (writable := find_writable(repository)) is not None:
        yield Finding(
            str(writable.relative_to(repository.resolve())),
            "a file or directory that every user of this machine may write",
            "one that others cannot write, because the server runs this code: "
            f"chmod -R o-w {repository}",
            may_pass=True,
        )


def _is_version(directory: Path) -> bool:
    return directory.is_dir() and directory.name.isdecimal()
