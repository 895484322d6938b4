"""All checks of a model repository, for both targets."""

from __future__ import annotations

from pathlib import Path

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.checks.bundles import check_bundles
from adprior_runtime.repository.checks.configs import check_configs, read_configs
from adprior_runtime.repository.checks.engine import check_engine, serves_engine
from adprior_runtime.repository.checks.ensembles import check_ensembles
from adprior_runtime.repository.checks.findings import Finding
from adprior_runtime.repository.checks.layout import check_layout, read_versions


def check_repository(repository: Path, *, allow_missing_engine: bool = False) -> list[Finding]:
    """Return everything that is wrong with a model repository; nothing is loaded or changed.

    Args:
        repository: What `adprior build` wrote.
        allow_missing_engine: A TensorRT-LLM engine may still be missing, as after a dry run.

    Raises:
        InvalidInputError: It is no directory.
    """
    if not repository.is_dir():
        raise InvalidInputError(f"{repository}: no such directory; make it with `adprior build`")
    versions = read_versions(repository)
    if not versions:
        told = f"what `adprior build` writes: {', '.join(MODEL_NAMES)}"
        return [Finding(".", "no adprior repository", told)]
    configs, findings = read_configs(repository)
    for_engine = serves_engine(repository)
    findings += check_layout(repository, versions, serves_engine=for_engine)
    findings += check_configs(configs)
    findings += check_ensembles(configs, versions)
    findings += check_bundles(repository, serves_engine=for_engine)
    if for_engine and LLM_ENGINE in versions:
        findings += check_engine(repository, configs, may_be_missing=allow_missing_engine)
    return list(dict.fromkeys(findings))  # a file that serves both targets is checked for each
