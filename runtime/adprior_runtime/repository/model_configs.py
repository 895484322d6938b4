"""The ``config.pbtxt`` files: rendered from `model_specs`, read and changed.

``python -m adprior_runtime.repository.model_configs`` writes the tree ``model_repository/``: for
each model a ``config.pbtxt`` (TensorRT-LLM), a ``configs/cpu.pbtxt`` and a ``configs/cuda.pbtxt``
(the exact search) if they differ from it, and a three-line ``1/model.py`` for each Python model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from google.protobuf import text_format

from adprior_runtime import contract
from adprior_runtime.contract import EXACT_TARGETS, Priority, Target
from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository import model_specs, tensorrt_llm_names
from adprior_runtime.repository.model_specs import Model, ModelTuning, Tensor
from adprior_runtime.repository.triton_schema import (
    ModelConfig,
    ModelInstanceGroup,
    ModelQueuePolicy,
    data_type_number,
)

Tunings: TypeAlias = Mapping[Target, Mapping[str, ModelTuning]]
"""The tuning of each target's models, by the model's name."""

_HEADER: Final = (
    "# Rendered from adprior_runtime.repository.model_specs: "
    "python -m adprior_runtime.repository.model_configs\n"
)
_SHIM: Final = """\
from adprior_runtime.triton.{name} import TritonPythonModel

__all__ = ["TritonPythonModel"]
"""


def render_tree(tuning: Tunings | None = None) -> dict[str, str]:
    """Return the text of every file of ``model_repository/`` by its relative path.

    Args:
        tuning: The tuning of each target's Python models, see `render`.
    """
    tree: dict[str, str] = {}
    for name in contract.MODEL_NAMES:
        production = tree[f"{name}/{Target.TENSORRT_LLM.config_file}"] = render(
            name, Target.TENSORRT_LLM
        )
        for target in EXACT_TARGETS:
            text = render(name, target, (tuning or {}).get(target))
            if text != production:
                tree[f"{name}/{target.config_file}"] = text
        if model_specs.model(name, Target.CPU).backend == "python":
            tree[f"{name}/1/model.py"] = _SHIM.format(name=name)
    return tree


def write_tree(directory: Path, tuning: Tunings | None = None) -> None:
    """Write the files of `render_tree` into a directory."""
    for name, text in render_tree(tuning).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def render(name: str, target: Target, tuning: Mapping[str, ModelTuning] | None = None) -> str:
    """Return the pbtxt of model ``name`` as it is deployed on ``target``.

    Args:
        name: One of ``contract.MODEL_NAMES``.
        target: What runs the language model.
        tuning: The tuning of the exact search's models; a model without an entry keeps the
            contract's. TensorRT-LLM's configuration does not change.
    """
    spec = _model(name, target, tuning)
    if spec.backend is not None:
        return _to_text(_single(spec))
    steps = [_model(step, target, tuning) for step in spec.steps]
    return _to_text(_ensemble(spec, steps))


def _model(name: str, target: Target, tuning: Mapping[str, ModelTuning] | None) -> Model:
    spec = model_specs.model(name, target)
    if tuning is None or target not in EXACT_TARGETS or name not in tuning:
        return spec
    return replace(spec, tuning=tuning[name])


def parse_config(text: str) -> Any:
    """Return the ``ModelConfig`` message of a text, or raise `text_format.ParseError`."""
    return text_format.Parse(text, ModelConfig())


def read_config(path: Path) -> Any:
    """Return the ``ModelConfig`` message of a file.

    Raises:
        ArtefactError: The file is missing or does not parse.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, text_format.ParseError) as error:
        reason = " ".join(str(error).split())
        raise ArtefactError(f"{path}: not a model's configuration: {reason}") from error


def set_parameters(text: str, parameters: Mapping[str, str]) -> str:
    """Return pbtxt ``text`` with entries of its ``parameters`` block added or replaced.

    A build uses this for values that depend on it, such as a TensorRT-LLM engine's path and beam
    width.
    """
    config = parse_config(text)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return _to_text(config)


def _to_text(config: Any) -> str:
    return _HEADER + str(text_format.MessageToString(config))


def _single(spec: Model) -> Any:
    config = _common(spec)
    config.backend = spec.backend
    if spec.is_queued:
        _bound_queue(config.dynamic_batching.default_queue_policy, contract.QUEUE_TIMEOUT_US)
    if spec.backend == tensorrt_llm_names.BACKEND:
        # This backend batches in flight, so that requests gain nothing by waiting for others.
        config.model_transaction_policy.SetInParent()  # the backend reads `decoupled` here: false
    elif spec.is_queued:
        _add_priorities(config.dynamic_batching)
        delay = spec.tuning.max_queue_delay_us
        config.dynamic_batching.max_queue_delay_microseconds = delay
    config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=spec.tuning.instances)
    for tensor in config.input:
        tensor.allow_ragged_batch = -1 in tensor.dims
    for key, value in spec.parameters.items():
        config.parameters[key].string_value = value
    if spec.tuning.threads:
        threads = str(spec.tuning.threads)
        config.parameters[contract.THREADS_PARAMETER].string_value = threads
    return config


def _bound_queue(policy: Any, timeout_us: int) -> None:
    """Limit how many requests wait and how long; a client's shorter deadline counts."""
    policy.max_queue_size = contract.MAX_QUEUE_SIZE
    policy.default_timeout_microseconds = timeout_us
    policy.allow_timeout_override = True
    policy.timeout_action = ModelQueuePolicy.REJECT


def _add_priorities(batching: Any) -> None:
    """Give each priority its own queue; bulk requests may wait longer, because they go last."""
    batching.priority_levels = len(Priority)
    batching.default_priority_level = Priority.RETRIEVAL
    _bound_queue(batching.priority_queue_policy[Priority.BULK], contract.BULK_QUEUE_TIMEOUT_US)


def _ensemble(spec: Model, steps: list[Model]) -> Any:
    config = _common(spec)
    # Triton refuses an ensemble with larger batches than one of its steps.
    config.max_batch_size = min(step.tuning.max_batch_size for step in steps)
    available = {name: name for name in _names(spec.inputs)}
    for position, step in enumerate(steps):
        entry = config.ensemble_scheduling.step.add(model_name=step.name, model_version=-1)
        later = steps[position + 1 :]
        for tensor in step.inputs:
            if tensor.name in available:
                entry.input_map[tensor.name] = available[tensor.name]
        for tensor in step.outputs:
            if _is_used(tensor.name, later, _names(spec.outputs)):
                is_produced_again = any(tensor.name in _names(each.outputs) for each in later)
                name = f"{step.name}_{tensor.name}" if is_produced_again else tensor.name
                entry.output_map[tensor.name] = available[tensor.name] = name
    return config


def _is_used(name: str, later: list[Model], ensemble_outputs: set[str]) -> bool:
    """Whether this output is used.

    A later step reads it, or the ensemble returns it and no later step produces it again.
    """
    for step in later:
        if name in _names(step.inputs):
            return True
        if name in _names(step.outputs):
            return False
    return name in ensemble_outputs


def _common(spec: Model) -> Any:
    config = ModelConfig(name=spec.name, max_batch_size=spec.tuning.max_batch_size)
    if spec.backend is None:
        config.platform = "ensemble"
    for tensor in spec.inputs:
        entry = config.input.add(optional=tensor.optional)
        _describe(entry, tensor)
    for tensor in spec.outputs:
        _describe(config.output.add(), tensor)
    return config


def _describe(entry: Any, tensor: Tensor) -> None:
    dtype = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    entry.name = tensor.name
    entry.data_type = data_type_number(dtype)
    entry.dims.extend(tensor.dims)
    if tensor.scalar:
        entry.reshape.SetInParent()  # present and empty: a scalar


def _names(tensors: tuple[Tensor, ...]) -> set[str]:
    return {tensor.name for tensor in tensors}


def main(directory: Path) -> int:
    """Write the tree into ``directory``; remove configurations that are no longer rendered."""
    tree = render_tree()
    for path in directory.rglob("*.pbtxt"):
        if str(path.relative_to(directory)) not in tree:
            path.unlink()
    write_tree(directory)
    return 0


if __name__ == "__main__":
    if not Path("model_repository").is_dir():
        sys.exit(f"{Path.cwd()}: no model_repository here: run this in the root of a checkout")
    sys.exit(main(Path("model_repository")))
