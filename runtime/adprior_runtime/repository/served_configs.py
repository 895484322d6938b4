"""A repository's ``config.pbtxt`` files, as the server is about to read them.

Triton takes a model's ``config.pbtxt`` where the one asked for is gone, and any ensemble that is
consistent: the answers would lack what the other configuration has, and nothing would say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adprior_runtime.contract import MODEL_NAMES, Target
from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository.model_specs import Model, model


def read_config(path: Path) -> Any:
    """Return the ``ModelConfig`` message of a file.

    Raises:
        ArtefactError: It is missing or not one.
    """
    from google.protobuf import text_format  # noqa: PLC0415  heavy, and no need of the client's
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        told = " ".join(str(error).split())
        raise ArtefactError(f"{path}: not a model's configuration: {told}") from error


def check_configs(repository: Path, config_name: str | None) -> None:
    """Check that every configuration can be read, and that those served have the contract's models.

    Instances, batching, queues and parameters are the operator's.

    Args:
        repository: What `adprior build` made.
        config_name: Which ``configs/NAME.pbtxt`` the server prefers; None for ``config.pbtxt``.

    Raises:
        ArtefactError: One is damaged, missing, or another model's or target's; or a Python model's
            source is missing.
    """
    target = Target.GPU if config_name is None else Target.CPU
    for name in MODEL_NAMES:
        path = repository / name / "config.pbtxt"
        configs = {each: read_config(each) for each in (path, *_alternatives(path))}
        if config_name is not None and _has_its_own(name):
            path = path.parent / "configs" / f"{config_name}.pbtxt"
        if path not in configs:
            raise ArtefactError(f"{path}: no such file; build the repository again")
        for each, config in configs.items():
            if config.name != name:
                raise ArtefactError(f"{each}: name: found {config.name!r}, expected {name!r}")
        for what, found, expected in _differences(configs[path], model(name, target)):
            raise ArtefactError(f"{path}: {what}: found {found}, expected {expected}")
        source = repository / name / "1" / "model.py"
        if configs[path].backend == "python" and not source.is_file():
            # The server would say nothing, and wait for it for ever.
            raise ArtefactError(f"{source}: no such file; build the repository again")


def _alternatives(path: Path) -> list[Path]:
    return sorted((path.parent / "configs").glob("*.pbtxt"))


def _has_its_own(name: str) -> bool:
    """Whether the embedded server's configuration differs from the GPU's: itself, or a step's."""
    embedded = model(name, Target.CPU)
    steps = any(_has_its_own(step.model) for step in embedded.steps)
    return steps or embedded != model(name, Target.GPU)


def _differences(config: Any, spec: Model) -> list[tuple[str, str, str]]:
    compared = [
        ("backend", [config.backend], [spec.backend or ""]),
        ("inputs", [each.name for each in config.input], [each.name for each in spec.inputs]),
        ("outputs", [each.name for each in config.output], [each.name for each in spec.outputs]),
        (
            "steps",
            [step.model_name for step in config.ensemble_scheduling.step],
            [step.model for step in spec.steps],
        ),
    ]
    return [
        (what, ", ".join(found) or "none", ", ".join(expected) or "none")
        for what, found, expected in compared
        if sorted(found) != sorted(expected)
    ]
