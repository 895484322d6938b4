"""Rules for ensembles, Triton's and ours: every tensor is used, and fits where it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from adprior_runtime.contract import MODEL_NAMES
from adprior_runtime.repository.checks.config_files import Config, Configs, contract_config
from adprior_runtime.repository.checks.configs import NO_ENSEMBLE_FIELDS
from adprior_runtime.repository.checks.findings import Finding


def check_ensembles(configs: Configs, versions: Mapping[str, set[int]]) -> Iterator[Finding]:
    """Check the ensembles of each target against the models that they are made of."""
    for target, by_name in configs.items():
        for name, config in by_name.items():
            if config.message.platform == "ensemble":
                steps = contract_config(name, target).ensemble_scheduling.step
                wanted = {step.model_name: step for step in steps}
                for found, expected in _check(config.message, by_name, versions, wanted):
                    yield Finding(config.file, found, expected)


def _check(
    ensemble: Any,
    models: Mapping[str, Config],
    versions: Mapping[str, set[int]],
    wanted: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    present = {field.name for field, _ in ensemble.ListFields()}
    for field in sorted(present.intersection(NO_ENSEMBLE_FIELDS)):
        yield field, "none: an ensemble takes none"
    steps = ensemble.ensemble_scheduling.step
    if not steps:
        yield "no steps", "ensemble_scheduling with steps"
        return
    for step in steps:
        name = step.model_name
        yield from _check_step(ensemble, step, models.get(name), versions)
        if name in wanted:
            yield from _check_wiring(step, wanted[name])
    yield from _check_flow(ensemble, models)


def _check_step(
    ensemble: Any, step: Any, config: Config | None, versions: Mapping[str, set[int]]
) -> Iterator[tuple[str, str]]:
    """Check that a step's model exists, and has the tensors that the step names."""
    name = step.model_name
    if name not in versions and name not in MODEL_NAMES:  # the layout's check reports those
        yield f"a step of the model {name!r}", "a model of this repository"
    elif name in versions and step.model_version not in {-1, *versions[name]}:
        have = ", ".join(map(str, sorted(versions[name]))) or "none"
        yield f"version {step.model_version} of step {name}", f"-1, or one that is there: {have}"
    if config is None:
        return
    model = config.message
    if 0 < model.max_batch_size < ensemble.max_batch_size:
        yield (
            f"max_batch_size {ensemble.max_batch_size}",
            f"at most {model.max_batch_size}, that of step {name}",
        )
    for kind, tensors, mapped in (
        ("input", model.input, step.input_map),
        ("output", model.output, step.output_map),
    ):
        known = {tensor.name for tensor in tensors}
        for tensor in sorted(mapped.keys() - known):
            yield f"{kind}_map of {tensor!r} in step {name}", f"an {kind} that {name} has"
    for tensor in model.input:
        if tensor.name not in step.input_map and not tensor.optional:
            yield f"no input_map for {tensor.name} in step {name}", "one: it is not optional"
    if not step.output_map:
        yield f"no output_map in step {name}", "at least one: the step would have no effect"


def _check_wiring(step: Any, wanted: Any) -> Iterator[tuple[str, str]]:
    """Compare a step's tensors with the contract's: swapped ones may have like types and shapes."""
    name = step.model_name
    for kind in ("input_map", "output_map"):
        found, expected = dict(getattr(step, kind)), dict(getattr(wanted, kind))
        for tensor in sorted(found.keys() | expected.keys()):
            if tensor not in found:
                yield f"no {kind} for {tensor} in step {name}", f"{expected[tensor]}"
            elif tensor not in expected:
                yield f"{kind} of {tensor} in step {name} to {found[tensor]!r}", "none"
            elif found[tensor] != expected[tensor]:
                here = f"{kind} of {tensor} in step {name} to {found[tensor]!r}"
                yield here, repr(expected[tensor])
    if step.model_version != wanted.model_version:
        here = f"model_version {step.model_version} of step {name}"
        yield here, f"{wanted.model_version}, the one that is served"
    if step.model_namespace:
        yield f"model_namespace {step.model_namespace!r} of step {name}", "none"


def _check_flow(ensemble: Any, models: Mapping[str, Config]) -> Iterator[tuple[str, str]]:
    """Follow tensors from the ensemble's inputs through the steps to its outputs."""
    steps = ensemble.ensemble_scheduling.step
    outputs = {tensor.name: tensor for tensor in ensemble.output}
    given: dict[str, tuple[Any, str]] = {t.name: (t, "the request") for t in ensemble.input}
    for step in steps:
        if step.model_name not in models:
            return  # reported already
        tensors = {t.name: t for t in models[step.model_name].message.output}
        for of_model, name in sorted(step.output_map.items()):
            if name in given:
                yield (
                    f"{name} given by {given[name][1]} and by step {step.model_name}",
                    "one source of each tensor",
                )
            elif of_model in tensors:
                given[name] = (tensors[of_model], f"step {step.model_name}")
    taken = {name for step in steps for name in step.input_map.values()}
    for name, (_, giver) in given.items():
        if name not in taken and name not in outputs:
            yield f"{name} of {giver} that nothing takes", "every tensor to go somewhere"
    for step in steps:
        for tensor in models[step.model_name].message.input:
            name = step.input_map.get(tensor.name)
            if name in given:
                yield from _check_fit(given[name], tensor, f"step {step.model_name}")
    for name, tensor in outputs.items():
        if name in given:
            yield from _check_fit(given[name], tensor, "the ensemble's output")
    yield from _check_order(ensemble, set(outputs))


def _check_fit(given: tuple[Any, str], taken: Any, taker: str) -> Iterator[tuple[str, str]]:
    """Check that a tensor has the type and shape that its user needs, and always exists."""
    tensor, giver = given
    here = f"{tensor.name} of {giver}"
    if tensor.data_type != taken.data_type:
        kinds = [pb.DataType.Name(t.data_type).removeprefix("TYPE_") for t in (tensor, taken)]
        yield f"{here} as {kinds[0]}", f"{kinds[1]}, the type of {taken.name} in {taker}"
    if len(tensor.dims) != len(taken.dims) or any(
        one != other and -1 not in (one, other)
        for one, other in zip(tensor.dims, taken.dims, strict=True)
    ):
        shapes = [[*tensor.dims], [*taken.dims]]
        yield f"{here} with dims {shapes[0]}", f"{shapes[1]}, those of {taken.name} in {taker}"
    is_optional = isinstance(tensor, pb.ModelInput) and tensor.optional
    if is_optional and isinstance(taken, pb.ModelInput) and not taken.optional:
        yield f"{here}, which is optional", f"one that always comes: {taker} needs it"


def _check_order(ensemble: Any, outputs: set[str]) -> Iterator[tuple[str, str]]:
    """Check that every step gets its tensors at some point, and that every output is given."""
    ready = {tensor.name for tensor in ensemble.input}
    waiting = list(ensemble.ensemble_scheduling.step)
    while able := [step for step in waiting if set(step.input_map.values()) <= ready]:
        waiting = [step for step in waiting if step not in able]
        ready.update(name for step in able for name in step.output_map.values())
    for step in waiting:
        missing = ", ".join(sorted(set(step.input_map.values()) - ready))
        yield f"step {step.model_name} waiting for {missing}", "tensors that come before it"
    if not waiting:
        for name in sorted(outputs - ready):
            yield f"an output {name} that no step gives", "one that a step's output_map names"
