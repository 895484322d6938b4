"""Compares the ``config.pbtxt`` files with the configurations that the contract renders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import text_format

from adprior_runtime.contract import Target
from adprior_runtime.repository import tensorrt_llm_names
from adprior_runtime.repository.checks.config_files import Config, Configs, contract_config
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.tensorrt_llm_files import is_kv_share
from adprior_runtime.repository.triton_schema import ModelInput, data_type_name
from adprior_runtime.repository.tuning import TUNED_MODELS, read_tuning

_REASONS: Final = {
    "dynamic_batching": "a bounded queue, which rejects late requests and obeys clients' deadlines",
    "instance_group": "every model has KIND_CPU, also TensorRT-LLM's; the engine is loaded once",
    "model_transaction_policy": "ensembles and clients expect one answer to each request, and "
    "TensorRT-LLM reads `decoupled` from here",
    "response_cache": "the cache ignores which outputs a request asks for",
}
"""Why the contract sets these fields as it does; a finding quotes it."""

_Differences = Iterator[tuple[str, str, str]]
"""The field, what was found, what was expected."""


def check_configs(configs: Configs, level: Level) -> Iterator[Finding]:
    """Compare each configuration with the contract's.

    At the quick level, name, backend, the names and types of tensors, and the models of an
    ensemble's steps must agree; the operator may change the rest. At the full level every field
    must agree, except for the exact search's tuning and the parameters that an engine's build
    sets.
    """
    for target, by_name in configs.items():
        for name, config in by_name.items():
            found = config.message
            differences = [*_contract_differences(found, contract_config(name, target), level)]
            if level is Level.FULL:
                expected = _tuned_config(name, target, by_name)
                if expected.HasField("ensemble_scheduling"):
                    field, pairs = "ensemble_scheduling", _wiring_differences(found, expected)
                else:
                    field, pairs = "parameters", _parameter_differences(found, expected)
                differences += [(field, *pair) for pair in pairs]
                reported = {field for field, _, _ in differences}
                differences += _other_differences(found, expected, reported)
            for _, here, wanted in differences:
                yield Finding(config.file, here, wanted)


def _tuned_config(name: str, target: Target, by_name: Mapping[str, Config]) -> Any:
    """Return the configuration that the contract renders with the repository's own tuning."""
    tuning = tuple(
        (each, read_tuning(each, config.message, target))
        for each, config in by_name.items()
        if each in TUNED_MODELS
    )
    return contract_config(name, target, tuning)


def _contract_differences(found: Any, expected: Any, level: Level) -> _Differences:
    """Yield differences in the fields that no tuning may change."""
    is_full = level is Level.FULL
    for field in ("name", "platform", "backend") if is_full else ("name", "backend"):
        value, wanted = getattr(found, field), getattr(expected, field)
        if value != wanted:
            yield field, f"{field} {value!r}", repr(wanted)
    for kind in ("input", "output"):
        tensors, wanted_tensors = getattr(found, kind), getattr(expected, kind)
        describe = _describe if is_full else _describe_type
        for here, there in _tensor_differences(kind, tensors, wanted_tensors, describe):
            yield kind, here, there
    steps = [step.model_name for step in found.ensemble_scheduling.step]
    wanted_steps = [step.model_name for step in expected.ensemble_scheduling.step]
    is_same = steps == wanted_steps if is_full else sorted(steps) == sorted(wanted_steps)
    if not is_same:
        here = f"the steps {', '.join(steps) or 'none'}"
        yield "ensemble_scheduling", here, ", ".join(wanted_steps) or "none"


def _wiring_differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    """Compare the wiring of an ensemble: Triton accepts swapped tensors of the same type."""
    wanted = {step.model_name: step for step in expected.ensemble_scheduling.step}
    for step in found.ensemble_scheduling.step:
        name = step.model_name
        if name not in wanted:
            continue  # the list of steps differs
        for kind in ("input_map", "output_map"):
            here, there = dict(getattr(step, kind)), dict(getattr(wanted[name], kind))
            for tensor in sorted(here.keys() | there.keys()):
                if tensor not in here:
                    yield f"no {kind} for {tensor} in step {name}", there[tensor]
                elif here[tensor] != there.get(tensor):
                    expected_name = repr(there[tensor]) if tensor in there else "none"
                    yield f"{kind} of {tensor} in step {name} to {here[tensor]!r}", expected_name
        version = wanted[name].model_version
        if step.model_version != version:
            here_version = f"model_version {step.model_version} of step {name}"
            yield here_version, f"{version}, the version that is served"
        if step.model_namespace:
            yield f"model_namespace {step.model_namespace!r} of step {name}", "none"


def _other_differences(found: Any, expected: Any, reported: set[str]) -> _Differences:
    """Yield every other field that differs, with the reason for the contract's value."""
    is_ensemble = expected.HasField("ensemble_scheduling")
    compared = {"input", "output", "ensemble_scheduling" if is_ensemble else "parameters"}
    compared |= reported
    for field in found.DESCRIPTOR.fields:
        name = field.name
        here, there = _only(found, name), _only(expected, name)
        if name not in compared and here != there:
            reason = f": {_REASONS[name]}" if name in _REASONS else ""
            yield (
                name,
                _one_line(here) or f"no {name}",
                f"{_one_line(there) or f'no {name}'}{reason}",
            )


def _only(message: Any, field: str) -> Any:
    """Return a copy of a message that has one of its fields only."""
    alone = type(message)()
    alone.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        if descriptor.name != field:
            alone.ClearField(descriptor.name)
    return alone


def _one_line(message: Any) -> str:
    return str(text_format.MessageToString(message, as_one_line=True)).strip()


def _tensor_differences(
    kind: str, found: Any, expected: Any, describe: Callable[[Any], str]
) -> Iterator[tuple[str, str]]:
    here = {tensor.name: tensor for tensor in found}
    if len(here) < len(found):
        yield f"an {kind} declared twice", "each once"
    for tensor in expected:
        wanted = describe(tensor)
        if tensor.name not in here:
            yield f"no {kind} {tensor.name}", wanted
        elif (described := describe(here[tensor.name])) != wanted:
            yield f"{kind} {tensor.name} as {described}", wanted
    wanted_names = {tensor.name for tensor in expected}
    for name in here.keys() - wanted_names:
        # Other optional inputs of TensorRT-LLM are harmless. It never looks up a wrong name.
        official = kind == "input" and name in tensorrt_llm_names.INPUTS
        if not (official and here[name].optional):
            names = ", ".join(sorted(wanted_names))
            yield f"an {kind} {name}", f"only the contract's: {names}"


def _describe_type(tensor: Any) -> str:
    return data_type_name(tensor.data_type)


def _describe(tensor: Any) -> str:
    """Return a tensor's type, dims and every other field, in words."""
    words = [_describe_type(tensor), str([*tensor.dims])]
    if tensor.HasField("reshape"):
        words.append(f"reshaped to {[*tensor.reshape.shape]}")
    flags = {"optional", "allow_ragged_batch"} if isinstance(tensor, ModelInput) else set()
    words += [word for word in sorted(flags, reverse=True) if getattr(tensor, word)]
    rest = type(tensor)()
    rest.CopyFrom(tensor)
    for field in ("name", "data_type", "dims", "reshape", *flags):
        rest.ClearField(field)
    return " ".join([*words, _one_line(rest)]).strip()


_SET_BY_A_BUILD: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    tensorrt_llm_names.ENGINE_PATH: (lambda value: value.startswith("/"), "a path from /"),
    tensorrt_llm_names.MAX_BEAM_WIDTH: (
        lambda value: value.isdecimal() and int(value) >= 1,
        "a whole number of at least 1",
    ),
    tensorrt_llm_names.KV_CACHE_SHARE: (is_kv_share, "a share, above 0 and below 1"),
}
"""The parameters that a build of an engine sets: a check of the value, and its form in words."""


def _parameter_differences(found: Any, expected: Any) -> Iterator[tuple[str, str]]:
    """Compare parameters; a parameter that a build sets only needs the right form."""
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
    """Return a value as the backend reads it: ``1`` and ``true`` are the same, in any case."""
    return {"1": "true", "0": "false"}.get(value.lower(), value.lower())
