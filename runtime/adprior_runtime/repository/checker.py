"""Checks whether a repository is right: one list of findings, at a quick and a full level.

``adprior serve`` runs the quick level before each start of its server. ``adprior build`` runs the
full level on the repository that it wrote, and ``adprior build --check REPO`` on any repository.

=================== ====================================== =====================================
module              quick                                  full, in addition
=================== ====================================== =====================================
layout              directories, versions, shims, modes    the text of each shim
configs             each file parses; tensors, backend and every field, and the tensors of each
                    steps are the contract's               step of an ensemble
bundles             manifests are sealed and of one bundle SHA-256 of every file
tensorrt_llm_engine files, parameters and sizes            tokens of the catalogue's names
=================== ====================================== =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.repository.checks.bundles import check_bundles
from adprior_runtime.repository.checks.config_files import read_configs
from adprior_runtime.repository.checks.configs import check_configs
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.checks.layout import check_layout, check_modes, read_versions
from adprior_runtime.repository.checks.tensorrt_llm_engine import check_engine, serves_engine


def check_repository(
    repository: Path,
    level: Level = Level.FULL,
    *,
    allow_missing_engine: bool = False,
    is_being_built: bool = False,
) -> list[Finding]:
    """Return everything that is wrong with a model repository; nothing is loaded or changed.

    Args:
        repository: A directory that `adprior build` wrote.
        level: How much to check.
        allow_missing_engine: A TensorRT-LLM engine may still be missing, as after a dry run.
        is_being_built: Leave out the file modes: those of a build follow the umask and the mount.

    Raises:
        InvalidInputError: ``repository`` is not a directory.
    """
    if not repository.is_dir():
        raise InvalidInputError(f"{repository}: no such directory; make it with `adprior build`")
    versions = read_versions(repository)
    if not versions:
        expected = f"what `adprior build` writes: {', '.join(MODEL_NAMES)}"
        return [Finding(".", "no adprior repository", expected)]
    for_engine = serves_engine(repository)
    configs, findings = read_configs(repository)
    findings += check_layout(repository, versions, level, serves_engine=for_engine)
    if not is_being_built:
        findings += check_modes(repository)
    findings += check_configs(configs, level)
    findings += check_bundles(repository, level, serves_engine=for_engine)
    if for_engine and LLM_ENGINE in versions:
        findings += check_engine(repository, configs, level, may_be_missing=allow_missing_engine)
    return list(dict.fromkeys(findings))  # a file that serves both targets is checked for each


def refuse_findings(repository: Path, findings: Sequence[Finding], advice: str = "") -> None:
    """Raise the first finding, if there is one, as an `ArtefactError`.

    The message names ``repository``. ``advice`` is added if there are several findings.
    """
    if findings:
        others = f" (1 of {len(findings)} findings{advice})" if len(findings) > 1 else ""
        raise ArtefactError(f"{repository}/{findings[0].line}{others}")
