"""Parses the ``config.pbtxt`` files of a repository, and selects each target's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from adprior_runtime.contract import MODEL_NAMES, Target
from adprior_runtime.repository.checks.findings import Finding
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.model_specs import ModelTuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A model's configuration on one target.

    Attributes:
        file: Its path, relative to the repository.
        message: The ``ModelConfig``.
    """

    file: str
    message: Any


Tuning = tuple[tuple[str, ModelTuning], ...]
"""The tuning of models by name, as a key of the cache."""
Configs = Mapping[Target, Mapping[str, Config]]
"""Configurations by target and model, without models whose file does not parse."""


def read_configs(
    repository: Path, targets: Collection[Target] = tuple(Target)
) -> tuple[Configs, list[Finding]]:
    """Parse every configuration, and select those of ``targets`` as Triton does.

    If a target's own configuration is missing, Triton reads ``config.pbtxt``. It accepts any
    consistent ensemble, so that answers would lack tensors without an error.
    """
    findings: list[Finding] = []
    configs: dict[Target, dict[str, Config]] = {target: {} for target in targets}
    for name in MODEL_NAMES:
        if not (repository / name).is_dir():
            continue  # the check of the layout reports it
        production = f"{name}/{Target.TENSORRT_LLM.config_file}"
        others = sorted((repository / name / "configs").glob("*.pbtxt"))
        files = [production, *(str(path.relative_to(repository)) for path in others)]
        messages = {}
        for file in files:
            try:
                messages[file] = parse_config((repository / file).read_text(encoding="utf-8"))
            except FileNotFoundError:
                expected = "the model's configuration"
                findings.append(Finding(file, "no such file", expected, may_pass=True))
            except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
                found = f"a configuration that does not parse ({error})"
                findings.append(Finding(file, found, "a configuration that parses"))
        for target in targets:
            file = f"{name}/{target.config_file}"
            if file not in files:
                if contract_config(name, target) != contract_config(name, Target.TENSORRT_LLM):
                    expected = "this file: the exact search needs its own configuration"
                    findings.append(Finding(file, "no such file", expected, may_pass=True))
                file = production
            if file in messages:
                configs[target][name] = Config(file=file, message=messages[file])
    return configs, findings


@cache
def contract_config(name: str, target: Target, tuning: Tuning = ()) -> Any:
    """Return the ``ModelConfig`` that the contract renders; do not change it.

    Args:
        name: One of ``contract.MODEL_NAMES``.
        target: The kind of machine.
        tuning: See `render`.
    """
    return parse_config(render(name, target, dict(tuning)))
