"""The ``config.pbtxt`` files of a repository: parsed, and chosen for each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from adprior_runtime.contract import CPU_CONFIG_NAME, MODEL_NAMES, Target
from adprior_runtime.repository.checks.findings import Finding
from adprior_runtime.repository.model_configs import parse_config, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A model's configuration on one target.

    Attributes:
        file: Its path, relative to the repository.
        message: The ``ModelConfig``.
    """

    file: str
    message: Any


Configs = Mapping[Target, Mapping[str, Config]]
"""Configurations by target and model, without models whose file does not parse."""


def read_configs(repository: Path) -> tuple[Configs, list[Finding]]:
    """Parse every configuration of the contract's models, and choose each target's as Triton does.

    Triton reads ``config.pbtxt`` where the configuration asked for is missing, and accepts any
    consistent ensemble: answers would lack tensors, without an error.
    """
    findings: list[Finding] = []
    configs: dict[Target, dict[str, Config]] = {target: {} for target in Target}
    for name in MODEL_NAMES:
        if not (repository / name).is_dir():
            continue  # the check of the layout reports it
        production = f"{name}/config.pbtxt"
        embedded = f"{name}/configs/{CPU_CONFIG_NAME}.pbtxt"
        others = sorted((repository / name / "configs").glob("*.pbtxt"))
        files = [production, *(str(path.relative_to(repository)) for path in others)]
        messages = {}
        for file in files:
            try:
                messages[file] = parse_config((repository / file).read_text(encoding="utf-8"))
            except FileNotFoundError:
                findings.append(Finding(file, "no such file", "a configuration"))
            except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
                found = f"a configuration that does not parse ({error})"
                findings.append(Finding(file, found, "one that does"))
        if embedded not in files:
            if contract_config(name, Target.CPU) != contract_config(name, Target.GPU):
                findings.append(
                    Finding(embedded, "no such file", "it: the embedded server needs its own")
                )
            embedded = production
        for target, file in ((Target.GPU, production), (Target.CPU, embedded)):
            if file in messages:
                configs[target][name] = Config(file=file, message=messages[file])
    return configs, findings


@cache
def contract_config(name: str, target: Target) -> Any:
    """Return the ``ModelConfig`` that the contract renders to; not to be changed."""
    return parse_config(render(name, target))
