"""Checks whether a repository is right: one list of findings, at a quick and a full level.

``adprior serve`` runs the quick level before each start of its server. ``adprior build`` runs the
full level on the repository that it wrote, and ``adprior build --check REPO`` on any repository.

=================== ====================================== =====================================
module              quick                                  full, in addition
=================== ====================================== =====================================
layout              directories, version 1, shims, modes   no other version; each shim's text
configs             each file parses; the tensors, backend every field on all targets, and the
                    and steps that it serves are right     tensors of each step of an ensemble
bundles             manifests are sealed and of one bundle SHA-256 of every file
tensorrt_llm_engine files and sizes                        parameters; tokens of catalogue names
=================== ====================================== =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES, Target
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.repository.checks.bundles import check_bundles
from adprior_runtime.repository.checks.config_files import read_configs
from adprior_runtime.repository.checks.configs import check_configs
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.checks.layout import check_layout, check_modes, read_versions
from adprior_runtime.repository.checks.tensorrt_llm_engine import (
    check_engine,
    has_engine_files,
    serves_engine,
)

_REBUILD: Final = "build the repository again with this adprior"


def check_repository(
    repository: Path,
    level: Level = Level.FULL,
    *,
    target: Target = Target.CPU,
    allow_missing_engine: bool = False,
    is_being_built: bool = False,
) -> list[Finding]:
    """Return everything that is wrong with a model repository; nothing is loaded or changed.

    Args:
        repository: A directory that `adprior build` wrote.
        level: How much to check.
        target: The configuration to check at the quick level; TensorRT-LLM's if the repository is
            for its engine.
        allow_missing_engine: A TensorRT-LLM engine may still be missing, as after a dry run.
        is_being_built: Leave out what depends on the place where the repository will be: the file
            modes, and the engine's path in the container.

    Raises:
        InvalidInputError: ``repository`` is not a directory.
    """
    if not repository.is_dir():
        raise InvalidInputError(f"{repository}: no such directory; make it with `adprior build`")
    versions = read_versions(repository)
    if not versions:
        expected = f"what `adprior build` writes: {', '.join(MODEL_NAMES)}"
        return [Finding(".", "no adprior repository", expected, may_pass=True)]
    for_engine = serves_engine(repository)
    served = Target.TENSORRT_LLM if for_engine else target
    targets = [served] if level is Level.QUICK else [*Target]
    configs, findings = read_configs(repository, targets)
    findings += check_layout(repository, versions, level, serves_engine=for_engine)
    findings += check_configs(configs, level)
    findings += check_bundles(repository, level, serves_engine=for_engine)
    findings = [replace(finding, remedy=finding.remedy or _REBUILD) for finding in findings]
    if not is_being_built:
        findings += check_modes(repository)
    has_files = level is Level.FULL and has_engine_files(repository)
    if (for_engine or has_files) and LLM_ENGINE in versions:
        findings += check_engine(
            repository,
            configs,
            level,
            may_be_missing=allow_missing_engine,
            is_in_place=not is_being_built,
        )
    return list(dict.fromkeys(findings))  # a file that serves two targets is checked for each


def refuse_findings(repository: Path, findings: Sequence[Finding], advice: str = "") -> None:
    """Raise the first finding, if there is one; ``advice`` is added if there are several.

    Raises:
        InvalidInputError: A finding may pass.
        ArtefactError: No finding may pass.
    """
    if not findings:
        return
    error = InvalidInputError if any(each.may_pass for each in findings) else ArtefactError
    remedy = f"; {findings[0].remedy}" if findings[0].remedy else ""
    others = f" (1 of {len(findings)} findings{advice})" if len(findings) > 1 else ""
    raise error(f"{repository}/{findings[0].line}{remedy}{others}")
