from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime import contract
from adprior_runtime.contract import Target
from adprior_runtime.repository.model_configs import (
    main,
    parse_config,
    render,
    render_tree,
    set_parameters,
)
from support.paths import ROOT

REPOSITORY = ROOT / "model_repository"
ENSEMBLES = (contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING)
EVERYWHERE = [(name, target) for name in ENSEMBLES for target in Target]


def _committed() -> dict[str, str]:
    return {
        str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
        for pattern in ("*.pbtxt", "*.py")
        for path in REPOSITORY.rglob(pattern)
    }


def _config(name: str, target: Target) -> Any:
    return parse_config(render(name, target))


def _inputs(config: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in config.input}


def test_the_committed_tree_is_what_the_contract_renders_to() -> None:
    assert _committed() == render_tree(), "run python -m adprior_runtime.repository.model_configs"


def _outputs(config: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in config.output}


def _kind(tensor: Any) -> tuple[int, list[int]]:
    return tensor.data_type, list(tensor.dims)


def _steps(ensemble: Any, target: Target) -> Iterator[tuple[Any, Any]]:
    for step in ensemble.ensemble_scheduling.step:
        yield step, _config(step.model_name, target)


@pytest.mark.parametrize(("name", "target"), EVERYWHERE)
def test_tensors_that_are_wired_together_agree_in_type_and_shape(name: str, target: Target) -> None:
    ensemble = _config(name, target)
    kinds = {tensor.name: _kind(tensor) for tensor in ensemble.input}
    for step, model in _steps(ensemble, target):
        for of_model, of_ensemble in step.input_map.items():
            assert _kind(_inputs(model)[of_model]) == kinds[of_ensemble]
        for of_model, of_ensemble in step.output_map.items():
            assert of_ensemble not in kinds, "two steps give one tensor"
            kinds[of_ensemble] = _kind(_outputs(model)[of_model])
    for output in ensemble.output:
        assert kinds[output.name] == _kind(output)


@pytest.mark.parametrize(("name", "target"), EVERYWHERE)
def test_every_step_gets_what_it_needs(name: str, target: Target) -> None:
    for step, model in _steps(_config(name, target), target):
        needed = {tensor.name for tensor in model.input if not tensor.optional}
        assert needed <= set(step.input_map)


@pytest.mark.parametrize(("name", "target"), EVERYWHERE)
def test_every_output_of_a_step_is_used(name: str, target: Target) -> None:
    ensemble = _config(name, target)
    taken = {tensor.name for tensor in ensemble.output}
    for step, _ in _steps(ensemble, target):
        taken |= set(step.input_map.values())
    for step, _ in _steps(ensemble, target):
        assert set(step.output_map.values()) <= taken


@pytest.mark.parametrize(("name", "target"), EVERYWHERE)
def test_no_request_skips_a_step_that_another_step_needs(name: str, target: Target) -> None:
    """Triton skips a step if each of its outputs is unwanted or read by skipped steps only.

    An output of the ensemble is unwanted if the request does not name it, whoever reads it
    (``ensemble_scheduler.cc``: ``pruned_tensor_to_step_``).
    """
    ensemble = _config(name, target)
    *earlier, last = ensemble.ensemble_scheduling.step
    outputs = {tensor.name for tensor in ensemble.output}
    read = {tensor for step in (*earlier, last) for tensor in step.input_map.values()}
    assert not outputs & read
    assert set(last.output_map.values()) <= outputs
    for step in earlier:
        assert set(step.output_map.values()) - outputs


def test_only_the_exact_search_has_a_proof() -> None:
    for name in ENSEMBLES:
        assert contract.PROVED_TOP_K in render(name, Target.CPU)
        assert contract.PROVED_TOP_K not in render(name, Target.TENSORRT_LLM)


def test_a_gpu_changes_the_language_model_alone() -> None:
    """One instance, because each loads the weights; no GPU asked of Triton.

    Triton refuses KIND_GPU where it finds none, and a process of KIND_CPU may use one.
    """
    for name in contract.MODEL_NAMES:
        on_cpu, on_gpu = _config(name, Target.CPU), _config(name, Target.CUDA)
        if name == contract.LLM_ENGINE:
            assert on_gpu.parameters["device"].string_value == "cuda"
            (group,) = on_gpu.instance_group
            assert (group.count, group.kind) == (1, on_cpu.instance_group[0].kind)
            on_cpu.instance_group[0].count = 1
            del on_gpu.parameters["device"]
        assert on_gpu == on_cpu


def test_tensorrt_llm_takes_scalars_and_true_log_probabilities() -> None:
    config = _config(contract.LLM_ENGINE, Target.TENSORRT_LLM)
    scalars = {tensor.name for tensor in config.input if tensor.HasField("reshape")}
    assert config.backend == "tensorrtllm"
    assert scalars == set(_inputs(config)) - {contract.INPUT_IDS}
    assert config.parameters["normalize_log_probs"].string_value == "false"
    assert config.parameters["exclude_input_in_output"].string_value == "true"


def test_no_request_can_set_a_diversity_rate() -> None:
    """A diversity rate makes kernels write out of bounds from 9 beams on (TensorRT-LLM #15621)."""
    rate = "beam_search_diversity_rate"
    assert rate not in _inputs(_config(contract.LLM_ENGINE, Target.TENSORRT_LLM))
    for name in ENSEMBLES:
        config = _config(name, Target.TENSORRT_LLM)
        assert rate not in _inputs(config)
        assert not [step for step in config.ensemble_scheduling.step if rate in step.input_map]


def test_ragged_inputs_may_share_a_batch() -> None:
    for name in contract.MODEL_NAMES:
        config = _config(name, Target.CPU)
        for tensor in config.input:
            assert tensor.allow_ragged_batch == (bool(config.backend) and -1 in tensor.dims)


def test_parameters_are_added_and_replaced() -> None:
    text = set_parameters(
        render(contract.LLM_ENGINE, Target.TENSORRT_LLM), {"max_beam_width": "48", "new": "x"}
    )
    parameters = parse_config(text).parameters
    assert parameters["max_beam_width"].string_value == "48"
    assert parameters["new"].string_value == "x"
    assert parameters["normalize_log_probs"].string_value == "false"


def test_writing_removes_configs_no_longer_rendered(tmp_path: Path) -> None:
    stale = tmp_path / "gone" / "config.pbtxt"
    stale.parent.mkdir()
    stale.touch()
    assert main(tmp_path) == 0
    assert not stale.exists()
    assert (tmp_path / contract.LLM_ENGINE / "configs" / "cpu.pbtxt").is_file()


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("name", contract.MODEL_NAMES)
def test_queues_have_limits_and_priorities(name: str, target: Target) -> None:
    config = _config(name, target)
    batching = config.dynamic_batching
    # An ensemble's steps have queues; the decoder gets no more than the engine lets through.
    if name in {*ENSEMBLES, contract.ADVERTISER_DECODER}:
        assert not config.HasField("dynamic_batching")
        return
    assert batching.default_queue_policy.max_queue_size == contract.MAX_QUEUE_SIZE
    assert batching.default_queue_policy.default_timeout_microseconds == contract.QUEUE_TIMEOUT_US
    if config.backend == "tensorrtllm":  # takes requests as they come: there is no order to keep
        assert batching.priority_levels == 0
        return
    assert batching.priority_levels == len(contract.Priority)
    assert batching.default_priority_level == contract.Priority.RETRIEVAL
    assert list(batching.priority_queue_policy) == [contract.Priority.BULK]
    bulk = batching.priority_queue_policy[contract.Priority.BULK]
    assert bulk.max_queue_size == contract.MAX_QUEUE_SIZE
    assert bulk.default_timeout_microseconds == contract.BULK_QUEUE_TIMEOUT_US
