"""Configurations read, and held against what the contract renders to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from adprior_runtime.contract import CPU_CONFIG_NAME, LLM_ENGINE, MODEL_NAMES, Target
from adprior_runtime.engines.compiled_tensorrt_llm import KV_SHARE, is_kv_share
from adprior_runtime.repository import tensorrt_llm_names
from adprior_runtime.repository.checks.findings import Finding
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.scaling import TUNED_MODELS, read_scaling

ENSEMBLE_TAKES_NONE: Final = (
    "instance_group",
    "optimization",
    "model_warmup",
    "dynamic_batching",
    "parameters",
)
"""Fields that Triton refuses in an ensemble."""


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
        if not (repository / name).is_dir():
            continue  # the check of the layout says so
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


def _expected_config(name: str, target: Target, by_name: Mapping[str, Config]) -> Any:
    """Return what the contract renders to with the tuning that the repository has, if any."""
    tuning = {
        each: read_scaling(each, config.message)
        for each, config in by_name.items()
        if each in TUNED_MODELS
    }
    return parse_config(render(name, target, tuning))


def check_configs(configs: Configs) -> Iterator[Finding]:
    """Compare each configuration with the contract's, field by field."""
    for target, by_name in configs.items():
        for name, config in by_name.items():
            expected = _expected_config(name, target, by_name)
            told: set[str] = set()
            for field, found, wanted in _differences(config.message, expected):
                told.add(field)
                yield Finding(config.file, found, wanted)
            if name == LLM_ENGINE and target is Target.GPU:
                for field, found, wanted in _engine_differences(config.message):
                    told.add(field)
                    yield Finding(config.file, found, wanted)
            for found, wanted in _other_differences(config.message, expected, told):
                yield Finding(config.file, found, wanted)


def _differences(found: Any, expected: Any) -> Iterator[tuple[str, str, str]]:
    """Yield differences that have something to be said of: the field, what was found, expected."""
    for field in ("name", "platform", "backend", "max_batch_size"):
        value, wanted = getattr(found, field), getattr(expected, field)
        if value != wanted:
            yield field, f"{field} {value!r}", repr(wanted)
    for kind in ("input", "output"):
        for told, wanted in _tensor_differences(
            kind, getattr(found, kind), getattr(expected, kind)
        ):
            yield kind, told, wanted
    if found.model_transaction_policy.decoupled:
        told = "one answer to each request: ensembles and clients take one"
        yield "model_transaction_policy", "a decoupled model", told
    if found.response_cache.enable:
        told = "none: it does not tell requests for other outputs apart"
        yield "response_cache", "response_cache", told
    if expected.HasField("ensemble_scheduling"):
        steps = [step.model_name for step in found.ensemble_scheduling.step]
        wanted = [step.model_name for step in expected.ensemble_scheduling.step]
        if steps != wanted:
            told = f"the steps {', '.join(steps) or 'none'}"
            yield "ensemble_scheduling", told, ", ".join(wanted)
        return
    if expected.HasField("dynamic_batching"):
        for told, wanted in _queue_differences(found.dynamic_batching.default_queue_policy):
            yield "dynamic_batching", told, wanted
    groups = found.instance_group
    if not groups or any(group.kind != pb.ModelInstanceGroup.KIND_CPU for group in groups):
        told = "an instance_group that is not KIND_CPU"
        yield "instance_group", told, "KIND_CPU, TensorRT-LLM's own too"
    for told, wanted in _parameter_differences(found, expected):
        yield "parameters", told, wanted


def _other_differences(found: Any, expected: Any, told: set[str]) -> Iterator[tuple[str, str]]:
    """Yield every field that differs, and that no rule of its own looks after or has told of."""
    checked = {"input", "output", "parameters", *told}  # one by one, by their names
    if found.platform == "ensemble":
        checked = {*told, "input", "output", "ensemble_scheduling", *ENSEMBLE_TAKES_NONE}
    for field in found.DESCRIPTOR.fields:
        if field.name in checked:
            continue
        here, there = _only(found, field.name), _only(expected, field.name)
        if here != there:
            yield _one_line(here) or f"no {field.name}", _one_line(there) or f"no {field.name}"


def _only(message: Any, field: str) -> Any:
    """Return a message that has one field of another, if that has it."""
    alone = type(message)()
    alone.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        if descriptor.name != field:
            alone.ClearField(descriptor.name)
    return alone


def _one_line(message: Any) -> str:
    return str(text_format.MessageToString(message, as_one_line=True)).strip()


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
        official = tensorrt_llm_names.INPUTS if kind == "input" else tensorrt_llm_names.OUTPUTS
        if kind == "input" and here[name].optional and name in official:
            continue
        yield f"an {kind} {name}", "those of the contract only: " + ", ".join(sorted(wanted_names))


def _describe(tensor: Any) -> str:
    """Return a tensor's type, dims and whatever else is said of it, in words."""
    words = [pb.DataType.Name(tensor.data_type).removeprefix("TYPE_"), str([*tensor.dims])]
    if tensor.HasField("reshape"):
        words.append(f"reshaped to {[*tensor.reshape.shape]}")
    flags = {"optional", "allow_ragged_batch"} if isinstance(tensor, pb.ModelInput) else set()
    words += [word for word in sorted(flags, reverse=True) if getattr(tensor, word)]
    rest = type(tensor)()
    rest.CopyFrom(tensor)
    for field in ("name", "data_type", "dims", "reshape", *flags):
        rest.ClearField(field)
    return " ".join([*words, _one_line(rest)]).strip()


def _parameter_differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    """Compare parameters; of those that a build sets, only their form."""
    parameters = {key: value.string_value for key, value in found.parameters.items()}
    wanted = {key: value.string_value for key, value in expected.parameters.items()}
    for key in wanted.keys() - parameters.keys():
        yield f"no parameter {key}", repr(wanted[key])
    is_engine = expected.backend == tensorrt_llm_names.BACKEND
    for key, value in sorted(parameters.items()):
        if is_engine and key in _SET_BY_A_BUILD:
            is_right, form = _SET_BY_A_BUILD[key]
            if not is_right(value):
                yield f"parameter {key} {value!r}", form
        elif key in wanted:
            if _as_read(value) != _as_read(wanted[key]):
                yield f"parameter {key} {value!r}", repr(wanted[key])
        elif is_engine and key not in tensorrt_llm_names.PARAMETERS:
            told = "a name that TensorRT-LLM reads: it ignores others without a word"
            yield f"parameter {key}", told
        else:
            told = f"only the contract's: {', '.join(sorted(wanted)) or 'none'}"
            yield f"parameter {key} {value!r}", told


def _engine_differences(found: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what TensorRT-LLM's backend alone asks for."""
    if not found.HasField("model_transaction_policy"):
        told = "one: the backend reads `decoupled` from it"
        yield "model_transaction_policy", "no model_transaction_policy", told
    if sum(group.count for group in found.instance_group) > 1:
        told = "one: each would load the engine anew"
        yield "instance_group", "several instances of the engine", told


def _as_read(value: str) -> str:
    """Return a value as the backend reads truth values: it takes four spellings of each."""
    return {"1": "true", "0": "false"}.get(value.lower(), value.lower())


_SET_BY_A_BUILD: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "gpt_model_path": (lambda value: value.startswith("/"), "a path from /"),
    "max_beam_width": (
        lambda value: value.isdecimal() and int(value) >= 1,
        "a whole number of at least 1",
    ),
    KV_SHARE: (is_kv_share, "a share, above 0 and below 1"),
}
"""Parameters of the engine that builds set: whether a value can be, and what can."""
