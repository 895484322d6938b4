"""Configurations read, and held against what the contract renders to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from adprior_build.check import tensorrt_llm
from adprior_build.check.findings import Finding
from adprior_build.model_configs import parse_config, render
from adprior_runtime.contract import CPU_CONFIG_NAME, LLM_ENGINE, MODEL_NAMES, Target

__all__ = ["Config", "Configs", "check_configs", "contract_config", "read_configs"]

_SET_BY_A_BUILD: Final = ("gpt_model_path", "max_beam_width")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A model's configuration on one target.

    Attributes:
        file: Where it was read, relative to the repository.
        message: The ``ModelConfig``.
    """

    file: str
    message: Any


Configs = Mapping[Target, Mapping[str, Config]]
"""By target and model; a model whose file does not parse is absent."""


def read_configs(repository: Path) -> tuple[Configs, list[Finding]]:
    """Parse every configuration of the contract's models, as each target's server takes them."""
    findings: list[Finding] = []
    configs: dict[Target, dict[str, Config]] = {target: {} for target in Target}
    for name in MODEL_NAMES:
        production = f"{name}/config.pbtxt"
        embedded = f"{name}/configs/{CPU_CONFIG_NAME}.pbtxt"
        if not (repository / embedded).is_file():
            if contract_config(name, Target.CPU) != contract_config(name, Target.GPU):
                findings.append(
                    Finding(embedded, "no such file", "it: the embedded server needs its own")
                )
            embedded = production
        messages = {}
        for file in dict.fromkeys((production, embedded)):
            try:
                messages[file] = parse_config((repository / file).read_text(encoding="utf-8"))
            except FileNotFoundError:
                findings.append(Finding(file, "no such file", "a configuration"))
            except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
                told = f"a configuration that does not parse ({error})"
                findings.append(Finding(file, told, "one that does"))
        for target, file in ((Target.GPU, production), (Target.CPU, embedded)):
            if file in messages:
                configs[target][name] = Config(file=file, message=messages[file])
    return configs, findings


@cache
def contract_config(name: str, target: Target) -> Any:
    """Return the ``ModelConfig`` that the contract renders to; not to be changed."""
    return parse_config(render(name, target))


def check_configs(configs: Configs) -> Iterator[Finding]:
    """Compare each configuration with the contract's."""
    for target, by_name in configs.items():
        for name, config in by_name.items():
            expected = contract_config(name, target)
            for found, wanted in _differences(config.message, expected):
                yield Finding(config.file, found, wanted)
            if name == LLM_ENGINE and target is Target.GPU:
                for found, wanted in _engine_differences(config.message, expected):
                    yield Finding(config.file, found, wanted)


def _differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    for field in ("name", "platform", "backend", "max_batch_size"):
        value, wanted = getattr(found, field), getattr(expected, field)
        if value != wanted:
            yield f"{field} {value!r}", repr(wanted)
    yield from _tensor_differences("input", found.input, expected.input)
    yield from _tensor_differences("output", found.output, expected.output)
    if found.model_transaction_policy.decoupled:
        yield "a decoupled model", "one answer to each request: ensembles and clients take one"
    if found.response_cache.enable:
        yield "response_cache", "none: it does not tell requests for other outputs apart"
    if expected.HasField("ensemble_scheduling"):
        steps = [step.model_name for step in found.ensemble_scheduling.step]
        wanted = [step.model_name for step in expected.ensemble_scheduling.step]
        if steps != wanted:
            yield f"the steps {', '.join(steps) or 'none'}", ", ".join(wanted)
        return
    yield from _queue_differences(found.dynamic_batching.default_queue_policy)
    groups = found.instance_group
    if not groups or any(group.kind != pb.ModelInstanceGroup.KIND_CPU for group in groups):
        yield "an instance_group that is not KIND_CPU", "KIND_CPU, TensorRT-LLM's own too"


def _queue_differences(policy: Any) -> Iterator[tuple[str, str]]:
    place = "dynamic_batching.default_queue_policy"
    if not policy.max_queue_size:
        yield "a queue without bound", f"{place}.max_queue_size"
    if not (
        policy.default_timeout_microseconds and policy.timeout_action == pb.ModelQueuePolicy.REJECT
    ):
        yield (
            "a queue that requests stay in for ever",
            f"{place}.default_timeout_microseconds, and REJECT",
        )
    elif not policy.allow_timeout_override:
        yield "a queue deaf to clients' deadlines", f"{place}.allow_timeout_override"


def _tensor_differences(kind: str, found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    here = {tensor.name: tensor for tensor in found}
    if len(here) < len(found):
        yield f"an {kind} declared twice", "each once"
    for tensor in expected:
        if tensor.name not in here:
            yield f"no {kind} {tensor.name}", _describe(tensor)
        elif (told := _describe(here[tensor.name])) != (wanted := _describe(tensor)):
            yield f"{kind} {tensor.name} as {told}", wanted
    wanted_names = {tensor.name for tensor in expected}
    for name in here.keys() - wanted_names:
        # Further optional inputs of TensorRT-LLM do no harm; a wrong name is never looked up.
        official = tensorrt_llm.INPUTS if kind == "input" else tensorrt_llm.OUTPUTS
        if kind == "input" and here[name].optional and name in official:
            continue
        yield f"an {kind} {name}", "those of the contract only: " + ", ".join(sorted(wanted_names))


def _describe(tensor: Any) -> str:
    """Return a tensor's type, dims and what else Triton must know, in words."""
    words = [pb.DataType.Name(tensor.data_type).removeprefix("TYPE_"), str([*tensor.dims])]
    if tensor.HasField("reshape"):
        words.append(f"reshaped to {[*tensor.reshape.shape]}")
    if isinstance(tensor, pb.ModelInput):
        words += [word for word in ("optional", "allow_ragged_batch") if getattr(tensor, word)]
    return " ".join(words)


def _engine_differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    """Compare the parameters that TensorRT-LLM reads."""
    parameters = {key: value.string_value for key, value in found.parameters.items()}
    for key, value in expected.parameters.items():
        wanted = value.string_value
        if key not in parameters:
            yield f"no parameter {key}", repr(wanted)
        elif key not in _SET_BY_A_BUILD and _as_read(parameters[key]) != _as_read(wanted):
            yield f"parameter {key} {parameters[key]!r}", repr(wanted)
    for key in sorted(parameters.keys() - tensorrt_llm.PARAMETERS):
        yield f"parameter {key}", "a name that TensorRT-LLM reads: it ignores others without a word"
    width = parameters.get("max_beam_width", "1")
    if not (width.isdecimal() and int(width) >= 1):
        yield f"parameter max_beam_width {width!r}", "a whole number of at least 1"
    if not found.HasField("model_transaction_policy"):
        yield "no model_transaction_policy", "one: the backend reads `decoupled` from it"
    if sum(group.count for group in found.instance_group) > 1:
        yield "several instances of the engine", "one: each would load the engine anew"


def _as_read(value: str) -> str:
    """Return a value as the backend reads truth values: it takes four spellings of each."""
    return {"1": "true", "0": "false"}.get(value.lower(), value.lower())
