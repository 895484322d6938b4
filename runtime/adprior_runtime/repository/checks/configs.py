"""The ``config.pbtxt`` files, compared with what the contract renders to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from adprior_runtime.contract import LLM_ENGINE, Target
from adprior_runtime.engines.compiled_tensorrt_llm import KV_SHARE, is_kv_share
from adprior_runtime.repository import tensorrt_llm_names
from adprior_runtime.repository.checks.config_files import Config, Configs, contract_config
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.scaling import TUNED_MODELS, read_scaling

NO_ENSEMBLE_FIELDS: Final = (
    "instance_group",
    "optimization",
    "model_warmup",
    "dynamic_batching",
    "parameters",
)
"""Fields that Triton refuses in an ensemble."""


_Differences = Iterator[tuple[str, str, str]]
"""The field, what was found, what was expected."""


def check_configs(configs: Configs, level: Level) -> Iterator[Finding]:
    """Compare each configuration with the contract's.

    At the quick level these have to agree: name, backend, tensors and the steps of ensembles. At
    the full level every field has to, but for the tuning of the embedded server and what a build
    of an engine sets.
    """
    for target, by_name in configs.items():
        for name, config in by_name.items():
            found = config.message
            differences = [*_contract_differences(found, contract_config(name, target))]
            if level is Level.FULL:
                expected = _tuned_config(name, target, by_name)
                differences += _serving_differences(found, expected)
                if name == LLM_ENGINE and target is Target.GPU:
                    differences += _engine_differences(found)
                reported = {field for field, _, _ in differences}
                differences += _other_differences(found, expected, reported)
            for _, here, wanted in differences:
                yield Finding(config.file, here, wanted)


def _tuned_config(name: str, target: Target, by_name: Mapping[str, Config]) -> Any:
    """Return what the contract renders to with the repository's own tuning."""
    tuning = {
        each: read_scaling(each, config.message)
        for each, config in by_name.items()
        if each in TUNED_MODELS
    }
    return parse_config(render(name, target, tuning))


def _contract_differences(found: Any, expected: Any) -> _Differences:
    """Yield differences in what the contract fixes, whatever the operator tunes."""
    for field in ("name", "platform", "backend"):
        value, wanted = getattr(found, field), getattr(expected, field)
        if value != wanted:
            yield field, f"{field} {value!r}", repr(wanted)
    for kind in ("input", "output"):
        for here, there in _tensor_differences(kind, getattr(found, kind), getattr(expected, kind)):
            yield kind, here, there
    steps = [step.model_name for step in found.ensemble_scheduling.step]
    wanted_steps = [step.model_name for step in expected.ensemble_scheduling.step]
    if steps != wanted_steps:
        here = f"the steps {', '.join(steps) or 'none'}"
        yield "ensemble_scheduling", here, ", ".join(wanted_steps) or "none"


def _serving_differences(found: Any, expected: Any) -> _Differences:
    """Yield differences in batching, queues, instances and parameters, each in words."""
    if found.max_batch_size != expected.max_batch_size:
        yield (
            "max_batch_size",
            f"max_batch_size {found.max_batch_size}",
            str(expected.max_batch_size),
        )
    if found.model_transaction_policy.decoupled:
        wanted = "one answer to each request: ensembles and clients take one"
        yield "model_transaction_policy", "a decoupled model", wanted
    if found.response_cache.enable:
        wanted = "none: it does not distinguish requests for other outputs"
        yield "response_cache", "response_cache", wanted
    if expected.HasField("ensemble_scheduling"):
        return
    if expected.HasField("dynamic_batching"):
        for here, wanted in _queue_differences(found.dynamic_batching.default_queue_policy):
            yield "dynamic_batching", here, wanted
    groups = found.instance_group
    if not groups or any(group.kind != pb.ModelInstanceGroup.KIND_CPU for group in groups):
        here = "an instance_group that is not KIND_CPU"
        yield "instance_group", here, "KIND_CPU, TensorRT-LLM's own too"
    for here, wanted in _parameter_differences(found, expected):
        yield "parameters", here, wanted


def _engine_differences(found: Any) -> _Differences:
    """Yield what TensorRT-LLM's backend alone requires."""
    if not found.HasField("model_transaction_policy"):
        wanted = "one: the backend reads `decoupled` from it"
        yield "model_transaction_policy", "no model_transaction_policy", wanted
    if sum(group.count for group in found.instance_group) > 1:
        wanted = "one: each would load the engine anew"
        yield "instance_group", "several instances of the engine", wanted


def _other_differences(found: Any, expected: Any, reported: set[str]) -> _Differences:
    """Yield every other field that differs, as text."""
    checked = {"input", "output", "parameters", *reported}  # compared one by one, by their names
    if found.platform == "ensemble":
        checked = {*reported, "input", "output", "ensemble_scheduling", *NO_ENSEMBLE_FIELDS}
    for field in found.DESCRIPTOR.fields:
        if field.name in checked:
            continue
        here, there = _only(found, field.name), _only(expected, field.name)
        if here != there:
            yield (
                field.name,
                _one_line(here) or f"no {field.name}",
                _one_line(there) or f"no {field.name}",
            )


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
        yield "a queue that ignores clients' deadlines", f"{place}.allow_timeout_override"


def _tensor_differences(kind: str, found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    here = {tensor.name: tensor for tensor in found}
    if len(here) < len(found):
        yield f"an {kind} declared twice", "each once"
    for tensor in expected:
        wanted = _describe(tensor)
        if tensor.name not in here:
            yield f"no {kind} {tensor.name}", wanted
        elif (described := _describe(here[tensor.name])) != wanted:
            yield f"{kind} {tensor.name} as {described}", wanted
    wanted_names = {tensor.name for tensor in expected}
    for name in here.keys() - wanted_names:
        # Further optional inputs of TensorRT-LLM do no harm; a wrong name is never looked up.
        official = kind == "input" and name in tensorrt_llm_names.INPUTS
        if not (official and here[name].optional):
            names = ", ".join(sorted(wanted_names))
            yield f"an {kind} {name}", f"those of the contract only: {names}"


def _describe(tensor: Any) -> str:
    """Return a tensor's type, dims and every other field, in words."""
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


_SET_BY_A_BUILD: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "gpt_model_path": (lambda value: value.startswith("/"), "a path from /"),
    "max_beam_width": (
        lambda value: value.isdecimal() and int(value) >= 1,
        "a whole number of at least 1",
    ),
    KV_SHARE: (is_kv_share, "a share, above 0 and below 1"),
}
"""Parameters of the engine that builds set: a test of the value, and its form in words."""


def _parameter_differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    """Compare parameters; of those that a build sets, only the form."""
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
            if _truth_value(value) != _truth_value(wanted[key]):
                yield f"parameter {key} {value!r}", repr(wanted[key])
        elif is_engine and key not in tensorrt_llm_names.PARAMETERS:
            yield f"parameter {key}", "a name that TensorRT-LLM reads: it ignores others silently"
        else:
            names = ", ".join(sorted(wanted)) or "none"
            yield f"parameter {key} {value!r}", f"only the contract's: {names}"


def _truth_value(value: str) -> str:
    """Return a value as the backend reads it: it takes four spellings of each truth value."""
    return {"1": "true", "0": "false"}.get(value.lower(), value.lower())
