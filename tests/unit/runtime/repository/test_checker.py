"""``adprior build --check`` on a whole repository, and on copies of it with one fault each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from adprior_build.tensorrt_llm.engine_files import needed_sizes
from adprior_runtime import contract
from adprior_runtime.bundle import MANIFEST, ONNX_MODEL_FILE, Bundle, Manifest
from adprior_runtime.cli import main
from adprior_runtime.contract import Target
from adprior_runtime.engines.compiled_tensorrt_llm import (
    engine_mismatches,
    read_engine_config,
    read_engine_parameters,
)
from adprior_runtime.repository.checker import check_repository
from adprior_runtime.repository.checks.config_files import read_configs
from adprior_runtime.repository.checks.configs import check_configs
from adprior_runtime.repository.checks.engine import check_engine
from adprior_runtime.repository.checks.ensembles import check_ensembles
from adprior_runtime.repository.checks.findings import Level
from adprior_runtime.repository.checks.layout import read_versions
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.tensorrt_llm_names import INPUTS, OUTPUTS, PARAMETERS
from stand_ins.engine_files import add_engine

BUNDLE = Path(__file__).parents[4] / "demo" / "bundle"
ENGINE, RANKING = "llm_engine/config.pbtxt", "advertiser_ranking/config.pbtxt"
RETRIEVAL, DECODER = "advertiser_retrieval/config.pbtxt", "advertiser_decoder/config.pbtxt"
TOKENIZER = "tokenizer/config.pbtxt"
BUILT = "llm_engine/1/config.json"


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an engine beside its ONNX model: it serves both targets."""
    repository = tmp_path_factory.mktemp("production") / "repository"
    assert main(["build", "--bundle", str(BUNDLE), "--output", str(repository)]) == 0
    add_engine(repository, BUNDLE)
    return repository


@pytest.fixture
def copy(production: Path, tmp_path: Path) -> Path:
    """A copy of hard links: a test replaces files and writes into none."""
    shutil.copytree(production, tmp_path / "copy", copy_function=os.link)
    return tmp_path / "copy"


def _write(path: Path, content: bytes | str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _edit(repository: Path, file: str, change: Callable[[Any], object]) -> None:
    """Parse a configuration, change its message, and write it again."""
    config = parse_config((repository / file).read_text())
    change(config)
    _write(repository / file, text_format.MessageToString(config))


def _edit_json(repository: Path, file: str, change: Callable[[Any], object]) -> None:
    document = json.loads((repository / file).read_text())
    change(document)
    _write(repository / file, json.dumps(document))


def _named(messages: Any, name: str) -> Any:
    return next(message for message in messages if message.name == name)


def _step(config: Any, model: str) -> Any:
    return next(s for s in config.ensemble_scheduling.step if s.model_name == model)


def _lines(repository: Path, level: Level = Level.FULL) -> list[str]:
    return [finding.line for finding in check_repository(repository, level)]


def test_nothing_is_found_in_what_a_build_writes(
    production: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--check", str(production)]) == 0
    out = capsys.readouterr().out
    assert out == f"adprior build: {production} · nothing found wrong\n"


def test_nothing_is_found_in_a_repository_for_the_embedded_server_alone(
    copy: Path,
) -> None:
    (copy / BUILT).unlink()
    (copy / "llm_engine/1/rank0.engine").unlink()
    assert _lines(copy) == []


def _tensor(kind: str, name: str, **fields: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        tensor = _named(getattr(config, kind), name)
        for field, value in fields.items():
            if field == "dims":
                tensor.dims[:] = value
            else:
                setattr(tensor, field, value)

    return change


def _parameter(name: str, value: str | None) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        if value is None:
            del config.parameters[name]
        else:
            config.parameters[name].string_value = value

    return change


def _cross(model: str, kind: str, one: str, other: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        tensors = getattr(_step(config, model), kind)
        tensors[one], tensors[other] = tensors[other], tensors[one]

    return change


def _queue(config: Any, **fields: int) -> None:
    for field, value in fields.items():
        setattr(config.dynamic_batching.default_queue_policy, field, value)


def _without(kind: str, name: str) -> Callable[[Any], None]:
    return lambda config: getattr(config, kind).remove(_named(getattr(config, kind), name))


CONFIG_FAULTS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    # what: (file, the change, what the line says after the file)
    "another name": (ENGINE, lambda c: setattr(c, "name", "tensorrt_llm"), "name 'tensorrt_llm'"),
    "another backend": (ENGINE, lambda c: setattr(c, "backend", "python"), "backend 'python'"),
    "a larger batch": (DECODER, lambda c: setattr(c, "max_batch_size", 64), "max_batch_size 64"),
    "an input left out": (ENGINE, _without("input", "end_id"), "no input end_id"),
    "an input of another type": (
        ENGINE,
        _tensor("input", "beam_width", data_type=pb.TYPE_INT64),
        "input beam_width as INT64 [1]",
    ),
    "an input of other dims": (
        ENGINE,
        _tensor("input", "input_ids", dims=[512]),
        "input input_ids as INT32 [512]",
    ),
    "an input that is not ragged": (
        ENGINE,
        _tensor("input", "input_ids", allow_ragged_batch=False),
        "input input_ids as INT32 [-1], expected INT32 [-1] allow_ragged_batch",
    ),
    "a scalar not reshaped": (
        ENGINE,
        lambda c: _named(c.input, "end_id").ClearField("reshape"),
        "input end_id as INT32 [1], expected INT32 [1] reshaped to []",
    ),
    "a misspelt input": (
        ENGINE,
        lambda c: c.input.add(name="beam_widht", data_type=pb.TYPE_INT32, dims=[1], optional=True),
        "an input beam_widht",
    ),
    "an output of another type": (
        ENGINE,
        _tensor("output", "cum_log_probs", data_type=pb.TYPE_FP16),
        "output cum_log_probs as FP16 [-1]",
    ),
    "an output left out": (
        DECODER,
        _without("output", "MISSING_MASS"),
        "no output MISSING_MASS",
    ),
    "normalised log-probabilities": (
        ENGINE,
        _parameter("normalize_log_probs", "true"),
        "parameter normalize_log_probs 'true', expected 'false'",
    ),
    "no reuse of the cache": (
        ENGINE,
        _parameter("enable_kv_cache_reuse", "False"),
        "parameter enable_kv_cache_reuse 'False', expected 'true'",
    ),
    "prompts in the output": (
        ENGINE,
        _parameter("exclude_input_in_output", None),
        "no parameter exclude_input_in_output",
    ),
    "sampling": (ENGINE, _parameter("decoding_mode", "top_p"), "parameter decoding_mode 'top_p'"),
    "static batching": (
        ENGINE,
        _parameter("gpt_model_type", "V1"),
        "parameter gpt_model_type 'V1'",
    ),
    "a misspelt parameter": (
        ENGINE,
        _parameter("max_beam_witdh", "32"),
        "parameter max_beam_witdh, expected a name that TensorRT-LLM reads",
    ),
    "another beam width": (
        ENGINE,
        _parameter("max_beam_width", "7"),
        "parameter max_beam_width '7', expected 32, the bundle's beam_width",
    ),
    "no beam width": (
        ENGINE,
        _parameter("max_beam_width", "wide"),
        "parameter max_beam_width 'wide', expected a whole number",
    ),
    "an engine elsewhere": (
        ENGINE,
        _parameter("gpt_model_path", "/opt/engine"),
        "parameter gpt_model_path '/opt/engine', expected the place of llm_engine/1",
    ),
    "a queue without bound": (
        ENGINE,
        lambda c: c.dynamic_batching.default_queue_policy.ClearField("max_queue_size"),
        "a queue without bound",
    ),
    "a queue without timeout": (
        TOKENIZER,
        lambda c: c.dynamic_batching.ClearField("default_queue_policy"),
        "a queue that requests stay in for ever",
    ),
    "a queue deaf to deadlines": (
        TOKENIZER,
        lambda c: c.dynamic_batching.default_queue_policy.ClearField("allow_timeout_override"),
        "a queue that ignores clients' deadlines",
    ),
    "instances left to the server": (
        ENGINE,
        lambda c: c.ClearField("instance_group"),
        "an instance_group that is not KIND_CPU",
    ),
    "no transaction policy": (
        ENGINE,
        lambda c: c.ClearField("model_transaction_policy"),
        "no model_transaction_policy",
    ),
    "a GPU instance": (
        DECODER,
        lambda c: setattr(c.instance_group[0], "kind", pb.ModelInstanceGroup.KIND_GPU),
        "an instance_group that is not KIND_CPU",
    ),
    "two engines": (
        ENGINE,
        lambda c: setattr(c.instance_group[0], "count", 2),
        "several instances of the engine",
    ),
    "a decoupled model": (
        ENGINE,
        lambda c: setattr(c.model_transaction_policy, "decoupled", True),
        "a decoupled model",
    ),
    "a response cache": (
        RETRIEVAL,
        lambda c: setattr(c.response_cache, "enable", True),
        "response_cache",
    ),
    "an ensemble with instances": (
        RANKING,
        lambda c: c.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU),
        "instance_group, expected none",
    ),
    "an ensemble with optimisation": (
        RANKING,
        lambda c: c.optimization.SetInParent(),
        "optimization, expected none",
    ),
    "an ensemble with warm-up": (
        RETRIEVAL,
        lambda c: c.model_warmup.add(name="w", batch_size=1),
        "model_warmup, expected none",
    ),
    "an ensemble of a larger batch": (
        RETRIEVAL,
        lambda c: setattr(c, "max_batch_size", 32),
        "max_batch_size 32, expected at most 16, that of step tokenizer",
    ),
    "a required input not mapped": (
        RANKING,
        lambda c: _step(c, "llm_engine").input_map.pop("end_id"),
        "no input_map for end_id in step llm_engine",
    ),
    "a tensor that the model has not": (
        RANKING,
        lambda c: _step(c, "prior_head").input_map.update({"LOGITS": "BASE_LOGITS"}),
        "input_map of 'LOGITS' in step prior_head",
    ),
    "a tensor that nothing gives": (
        RETRIEVAL,
        lambda c: _step(c, "llm_engine").output_map.pop("cum_log_probs"),
        "step advertiser_decoder waiting for cum_log_probs",
    ),
    "a tensor that nothing takes": (
        RETRIEVAL,
        lambda c: _step(c, "advertiser_decoder").input_map.pop("TOP_K"),
        "TOP_K of the request that nothing takes",
    ),
    "a tensor given twice": (
        RANKING,
        lambda c: _step(c, "advertiser_decoder").output_map.update({"BUNDLE_ID": "BUNDLE_ID"}),
        "BUNDLE_ID given by step advertiser_decoder and by step prior_head",
    ),
    "tensors crossed": (
        RETRIEVAL,
        lambda c: _step(c, "advertiser_decoder").input_map.update(
            {"cum_log_probs": "sequence_length", "sequence_length": "cum_log_probs"}
        ),
        "sequence_length of step llm_engine as INT32, expected FP32, the type of cum_log_probs",
    ),
    "shapes crossed": (
        RETRIEVAL,
        lambda c: _step(c, "advertiser_decoder").input_map.update(
            {"sequence_length": "output_ids", "output_ids": "sequence_length"}
        ),
        "output_ids of step llm_engine with dims [-1, -1], expected [-1]",
    ),
    "an output that no step gives": (
        RETRIEVAL,
        lambda c: _step(c, "advertiser_decoder").output_map.pop("EXACT"),
        "an output EXACT that no step gives",
    ),
    "a required input made optional": (
        RANKING,
        _tensor("input", "BASE_LOGITS", optional=True),
        "BASE_LOGITS of the request, which is optional",
    ),
    "a step left out": (
        RANKING,
        lambda c: c.ensemble_scheduling.step.remove(_step(c, "prior_head")),
        "the steps tokenizer, llm_engine, advertiser_decoder",
    ),
    "a step of no model": (
        RANKING,
        lambda c: setattr(_step(c, "prior_head"), "model_name", "priorhead"),
        "a step of the model 'priorhead'",
    ),
    "a step of no version": (
        RETRIEVAL,
        lambda c: setattr(_step(c, "tokenizer"), "model_version", 3),
        "version 3 of step tokenizer",
    ),
    "the embedded engine without its frontier": (
        "llm_engine/configs/cpu.pbtxt",
        _without("output", "frontier_log_mass"),
        "no output frontier_log_mass",
    ),
    "exclusions that do not reach the decoder": (
        "advertiser_retrieval/configs/cpu.pbtxt",
        lambda c: _step(c, "advertiser_decoder").input_map.pop("EXCLUDED_ADVERTISER_IDS"),
        "no input_map for EXCLUDED_ADVERTISER_IDS in step advertiser_decoder",
    ),
    "two numbers crossed on the way in": (
        RANKING,
        _cross("llm_engine", "input_map", "end_id", "pad_id"),
        "input_map of end_id in step llm_engine to 'pad_id', expected 'end_id'",
    ),
    "a length and a width crossed": (
        RETRIEVAL,
        _cross("llm_engine", "input_map", "request_output_len", "beam_width"),
        "input_map of request_output_len in step llm_engine to 'beam_width', expected",
    ),
    "two numbers crossed on the way out": (
        RETRIEVAL,
        _cross("tokenizer", "output_map", "end_id", "pad_id"),
        "output_map of pad_id in step tokenizer to 'end_id', expected 'pad_id'",
    ),
    "a tensor that is mapped to nothing": (
        RETRIEVAL,
        lambda c: _step(c, "llm_engine").input_map.update({"end_id": ""}),
        "input_map of end_id in step llm_engine to '', expected 'end_id'",
    ),
    "a pinned version of a step": (
        RETRIEVAL,
        lambda c: setattr(_step(c, "tokenizer"), "model_version", 1),
        "model_version 1 of step tokenizer, expected -1",
    ),
    "a namespace": (
        RETRIEVAL,
        lambda c: setattr(_step(c, "tokenizer"), "model_namespace", "/models"),
        "model_namespace '/models' of step tokenizer, expected none",
    ),
    "a policy that serves another version": (
        ENGINE,
        lambda c: c.version_policy.specific.versions.append(7),
        "version_policy { specific { versions: 7 } }, expected no version_policy",
    ),
    "another file to load": (
        DECODER,
        lambda c: setattr(c, "default_model_filename", "x.py"),
        'default_model_filename: "x.py", expected no default_model_filename',
    ),
    "a passive instance": (
        ENGINE,
        lambda c: setattr(c.instance_group[0], "passive", True),
        "instance_group { count: 1 kind: KIND_CPU passive: true }, expected instance_group",
    ),
    "another Python environment": (
        DECODER,
        _parameter("EXECUTION_ENV_PATH", "/tmp/environment.tar.gz"),
        "parameter EXECUTION_ENV_PATH '/tmp/environment.tar.gz', expected only the contract's",
    ),
    "an engine with warm-up": (
        ENGINE,
        lambda c: c.model_warmup.add(name="w", batch_size=1),
        "model_warmup { ",
    ),
    "a queue that nobody can wait in": (
        ENGINE,
        lambda c: _queue(c, default_timeout_microseconds=1),
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 1 ",
    ),
    "a queue of four thousand million": (
        ENGINE,
        lambda c: _queue(c, max_queue_size=4_000_000_000),
        "dynamic_batching { default_queue_policy { ",
    ),
    "a minute for a fuller batch": (
        TOKENIZER,
        lambda c: setattr(c.dynamic_batching, "max_queue_delay_microseconds", 60_000_000),
        "dynamic_batching { max_queue_delay_microseconds: 60000000",
    ),
    "an engine at a relative path": (
        ENGINE,
        _parameter("gpt_model_path", "models/llm_engine/1"),
        "parameter gpt_model_path 'models/llm_engine/1', expected a path from /",
    ),
    "a share of the memory that is none": (
        ENGINE,
        _parameter("kv_cache_free_gpu_mem_fraction", "lots"),
        "parameter kv_cache_free_gpu_mem_fraction 'lots', expected a share, above 0 and below 1",
    ),
    "a share of three": (
        ENGINE,
        _parameter("kv_cache_free_gpu_mem_fraction", "3"),
        "parameter kv_cache_free_gpu_mem_fraction '3', expected a share",
    ),
    "a window": (
        ENGINE,
        _parameter("max_attention_window_size", "8"),
        "parameter max_attention_window_size '8', expected only the contract's",
    ),
    "a cache of 64 tokens": (
        ENGINE,
        _parameter("max_tokens_in_paged_kv_cache", "64"),
        "parameter max_tokens_in_paged_kv_cache '64', expected only the contract's",
    ),
    "a parameter that may be": (
        ENGINE,
        _parameter("enable_chunked_context", "maybe"),
        "parameter enable_chunked_context 'maybe', expected only the contract's",
    ),
    "other GPUs": (
        ENGINE,
        _parameter("gpu_device_ids", "1,2;x"),
        "parameter gpu_device_ids '1,2;x', expected only the contract's",
    ),
    "a tensor with labels": (
        DECODER,
        lambda c: setattr(_named(c.output, "EXACT"), "label_filename", "labels.txt"),
        'output EXACT as BOOL [1] label_filename: "labels.txt", expected BOOL [1]',
    ),
    "the embedded ensemble with a step's tensor unmapped": (
        "advertiser_ranking/configs/cpu.pbtxt",
        lambda c: _step(c, "llm_engine").output_map.pop("scored_exact"),
        "step prior_head waiting for scored_exact",
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_fault_in_a_configuration_is_named(copy: Path, fault: str) -> None:
    file, change, told = CONFIG_FAULTS[fault]
    _edit(copy, file, change)
    assert any(line.startswith(f"{file}: found {told}") for line in _lines(copy)), _lines(copy)


HARMLESS = re.compile(r"#|  value {")
"""Lines that a server can do without: comments, and the empty value of a parameter."""


def _without_line(lines: list[str], index: int) -> str:
    """Return a configuration without one line, or without the block that begins there."""
    end = index + 1
    if lines[index].endswith("{"):
        indent = lines[index].partition(lines[index].strip())[0]
        end = lines.index(f"{indent}}}", index) + 1
    return "\n".join([*lines[:index], *lines[end:]])


@pytest.mark.parametrize("file", [ENGINE, DECODER, "advertiser_retrieval/configs/cpu.pbtxt"])
def test_no_line_of_a_configuration_can_go_without_a_word(copy: Path, file: str) -> None:
    lines = (copy / file).read_text().splitlines()
    versions = read_versions(copy)
    for index, line in enumerate(lines):
        _write(copy / file, _without_line(lines, index))
        configs, findings = read_configs(copy)
        findings += [*check_configs(configs, Level.FULL), *check_ensembles(configs, versions)]
        findings += check_engine(copy, configs, Level.FULL, may_be_missing=False)
        assert bool(findings) != bool(HARMLESS.match(line)) or line == "  value {", line


def _swap_bundle(copy: Path) -> None:
    place = copy / "prior_head/1/bundle" / MANIFEST
    document = json.loads(place.read_text()) | {"bundle_id": "c0ffee000000"}
    _write(place, json.dumps(document))


def _size(key: str, value: Any) -> Callable[[Path], None]:
    return lambda copy: _edit_json(copy, BUILT, lambda d: d["build_config"].update({key: value}))


def _exchange(copy: Path, one: str, other: str) -> None:
    first, second = (copy / one).read_bytes(), (copy / other).read_bytes()
    _write(copy / one, second)
    _write(copy / other, first)


def _open_to_others(copy: Path) -> None:
    _write(copy / DECODER, (copy / DECODER).read_bytes())
    (copy / DECODER).chmod(0o666)


FILE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty configuration": (
        lambda copy: _write(copy / TOKENIZER, ""),
        f"{TOKENIZER}: found name '', expected 'tokenizer'",
    ),
    "another model's configuration": (
        lambda copy: _exchange(copy, TOKENIZER, DECODER),
        f"{TOKENIZER}: found name 'advertiser_decoder', expected 'tokenizer'",
    ),
    "the other target's configuration": (
        lambda copy: _exchange(copy, ENGINE, "llm_engine/configs/cpu.pbtxt"),
        "llm_engine/configs/cpu.pbtxt: found backend 'tensorrtllm', expected 'python'",
    ),
    "a further configuration that does not parse": (
        lambda copy: _write(copy / "llm_engine/configs/mine.pbtxt", "input {"),
        "llm_engine/configs/mine.pbtxt: found a configuration that does not parse",
    ),
    "a file that everyone may write": (
        _open_to_others,
        f"{DECODER}: found a file or directory that every user of this machine may write",
    ),
    "an edited manifest": (
        lambda copy: _edit_json(
            copy, f"prior_head/1/bundle/{MANIFEST}", lambda d: d.update(forecast_k=8)
        ),
        f"prior_head/1/bundle/{MANIFEST}: found corrupt or edited: its bundle_id is ",
    ),
    "an engine's configuration nested without end": (
        lambda copy: _write(copy / BUILT, "[" * 100_000),
        f"{BUILT}: found not an engine's configuration",
    ),
    "a template nested without end": (
        lambda copy: _write(copy / "tokenizer/1/bundle/prompt.json", '{"a":' * 100_000),
        "tokenizer/1/bundle/prompt.json: found sha256 ",
    ),
    "a manifest nested without end": (
        lambda copy: _write(copy / "tokenizer/1/bundle" / MANIFEST, "[" * 100_000),
        "tokenizer/1/bundle/manifest.json: found not a bundle's manifest",
    ),
    "a configuration that does not parse": (
        lambda copy: _write(copy / ENGINE, (copy / ENGINE).read_text() + "max_batchsize: 4"),
        f"{ENGINE}: found a configuration that does not parse",
    ),
    "an unrendered template": (
        lambda copy: _write(copy / ENGINE, "max_batch_size: ${triton_max_batch_size}"),
        f"{ENGINE}: found a configuration that does not parse",
    ),
    "no configuration": (
        lambda copy: (copy / DECODER).unlink(),
        f"{DECODER}: found no such file",
    ),
    "no embedded configuration": (
        lambda copy: (copy / "llm_engine/configs/cpu.pbtxt").unlink(),
        "llm_engine/configs/cpu.pbtxt: found no such file",
    ),
    "a stray directory": (
        lambda copy: (copy / ".ipynb_checkpoints").mkdir(),
        ".ipynb_checkpoints: found a directory that is no model",
    ),
    "a model left out": (
        lambda copy: shutil.rmtree(copy / "prior_head"),
        "prior_head: found no such directory",
    ),
    "no version": (
        lambda copy: (copy / "advertiser_ranking/1").rmdir(),
        "advertiser_ranking: found the versions none",
    ),
    "a second version": (
        lambda copy: (copy / "tokenizer/2").mkdir(),
        "tokenizer: found the versions 1, 2",
    ),
    "no shim": (
        lambda copy: (copy / "tokenizer/1/model.py").unlink(),
        "tokenizer/1/model.py: found no such file",
    ),
    "another program for a shim": (
        lambda copy: _write(copy / "prior_head/1/model.py", "import os\n"),
        "prior_head/1/model.py: found another program",
    ),
    "no manifest": (
        lambda copy: (copy / "tokenizer/1/bundle" / MANIFEST).unlink(),
        "tokenizer/1/bundle/manifest.json: found not a bundle's manifest",
    ),
    "a corrupt file": (
        lambda copy: _write(copy / "advertiser_decoder/1/bundle/trie/offsets.npy", b"\x00"),
        "advertiser_decoder/1/bundle/trie/offsets.npy: found sha256 6e340b9cffb3…",
    ),
    "a file left out": (
        lambda copy: (copy / "tokenizer/1/bundle/prompt.json").unlink(),
        "tokenizer/1/bundle/prompt.json: found no such file",
    ),
    "a model of another bundle": (
        _swap_bundle,
        "prior_head/1/bundle/manifest.json: found the manifest of bundle c0ffee000000",
    ),
    "no engine file": (
        lambda copy: (copy / "llm_engine/1/rank0.engine").unlink(),
        "llm_engine/1/rank0.engine: found no engine",
    ),
    "an empty engine file": (
        lambda copy: _write(copy / "llm_engine/1/rank0.engine", b""),
        "llm_engine/1/rank0.engine: found an empty file",
    ),
    "an engine for ten thousand GPUs": (
        lambda copy: _edit_json(
            copy, BUILT, lambda d: d["pretrained_config"]["mapping"].update(world_size=10_000)
        ),
        f"{BUILT}: found an engine for 10000 GPUs (world_size), expected one",
    ),
    "an engine of two parts": (
        lambda copy: _write(copy / "llm_engine/1/rank1.engine", b"engine"),
        "llm_engine/1: found an engine for 2 GPUs, expected one file, rank0.engine",
    ),
    "the second part of an engine": (
        lambda copy: (copy / "llm_engine/1/rank0.engine").rename(
            copy / "llm_engine/1/rank1.engine"
        ),
        "llm_engine/1: found rank1.engine, expected one file, rank0.engine",
    ),
    "no engine configuration": (
        lambda copy: (copy / BUILT).unlink(),
        f"{BUILT}: found no such file, expected what trtllm-build wrote beside rank0.engine",
    ),
    "an engine's configuration that is none": (
        lambda copy: _write(copy / BUILT, "[]"),
        f"{BUILT}: found not an engine's configuration",
    ),
    "an engine of another version": (
        lambda copy: _edit_json(copy, BUILT, lambda d: d.update(version="0.20.0")),
        f"{BUILT}: found an engine of TensorRT-LLM 0.20.0, expected 1.2.1",
    ),
    "an engine of narrower beams": (
        _size("max_beam_width", 1),
        f"{BUILT}: found an engine of max_beam_width 1, expected 32, as config.pbtxt says",
    ),
    "an engine of wider beams": (
        _size("max_beam_width", 64),
        f"{BUILT}: found an engine of max_beam_width 64, expected 32, the beam width of every",
    ),
    "an engine with a quantised cache": (
        lambda copy: _edit_json(
            copy,
            BUILT,
            lambda d: d["pretrained_config"].update(quantization={"kv_cache_quant_algo": "FP8"}),
        ),
        f"{BUILT}: found a quantised KV cache (kv_cache_quant_algo FP8), expected none",
    ),
    "an engine of no batch": (
        _size("max_batch_size", None),
        f"{BUILT}: found an engine of max_batch_size None, expected at least 1",
    ),
    "an engine whose steps hold no prompt": (
        _size("max_num_tokens", 16),
        f"{BUILT}: found an engine of max_num_tokens 16, expected at least",
    ),
    "an engine of shorter prompts": (
        _size("max_input_len", 8),
        f"{BUILT}: found an engine of max_input_len 8, expected at least",
    ),
    "an engine that would cut names off": (
        lambda copy: _edit_json(
            copy,
            BUILT,
            lambda d: d["build_config"].update(max_seq_len=d["build_config"]["max_input_len"]),
        ),
        f"{BUILT}: found an engine of max_seq_len",
    ),
    "an engine of another vocabulary": (
        lambda copy: _edit_json(copy, BUILT, lambda d: d["pretrained_config"].update(vocab_size=9)),
        f"{BUILT}: found pretrained_config.vocab_size 9",
    ),
    "an engine without paged keys and values": (
        _size("kv_cache_type", "CONTINUOUS"),
        f"{BUILT}: found an engine of kv_cache_type CONTINUOUS",
    ),
    "an engine that cannot reuse prompts": (
        _size("plugin_config", {"use_paged_context_fmha": False}),
        f"{BUILT}: found an engine built without use_paged_context_fmha",
    ),
    "an engine that pads": (
        _size("plugin_config", []),
        f"{BUILT}: found an engine built without remove_input_padding",
    ),
}


FULL_LEVEL_ONLY = {
    "another program for a shim",
    "a corrupt file",
    "a file left out",
    "a template nested without end",
    "an engine of another vocabulary",
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_fault_in_the_files_is_named(copy: Path, fault: str) -> None:
    plant, told = FILE_FAULTS[fault]
    plant(copy)
    assert any(line.startswith(told) for line in _lines(copy)), _lines(copy)
    found_early = any(line.startswith(told) for line in _lines(copy, Level.QUICK))
    assert found_early == (fault not in FULL_LEVEL_ONLY)


def test_the_quick_level_finds_another_contract_and_leaves_tuning_to_the_operator(
    copy: Path,
) -> None:
    def enlarge(config: Any) -> None:
        config.instance_group[0].count = 4
        config.max_batch_size = 64

    _edit(copy, DECODER, enlarge)
    assert _lines(copy, Level.QUICK) == []
    assert _lines(copy) != []
    _edit(copy, DECODER, _tensor("output", "EXACT", data_type=pb.TYPE_INT32))
    _edit(copy, RANKING, lambda c: c.ensemble_scheduling.step.remove(_step(c, "prior_head")))
    assert [line.partition(",")[0] for line in _lines(copy, Level.QUICK)] == [
        f"{DECODER}: found output EXACT as INT32 [1]",
        f"{RANKING}: found the steps tokenizer",
    ]


def test_every_finding_is_a_line_and_the_exit_code_is_2(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "stray").mkdir()
    _edit(copy, ENGINE, _parameter("normalize_log_probs", "true"))
    assert main(["build", "--check", str(copy)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("stray: ")
    assert lines[1].startswith(f"{ENGINE}: ")
    assert main(["build", "--check", str(copy), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [finding["file"] for finding in document["findings"]] == ["stray", ENGINE]
    assert document["findings"][1]["expected"] == "'false'"


def test_a_fault_of_a_file_that_both_targets_read_is_said_once(copy: Path) -> None:
    _edit(copy, DECODER, lambda c: setattr(c, "backend", "java"))
    assert _lines(copy) == [f"{DECODER}: found backend 'java', expected 'python'"]


def test_an_engine_may_be_missing_where_that_is_said(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a dry run: a bundle for TensorRT-LLM, no ONNX model and no engine."""
    for model in ("tokenizer", "llm_engine", "advertiser_decoder", "prior_head"):
        place = copy / model / "1/bundle" / MANIFEST
        manifest = Manifest.load(place)
        files = {name: sha for name, sha in manifest.files.items() if name != ONNX_MODEL_FILE}
        changed = replace(manifest, engine="tensorrt-llm", files=files).sealed()
        _write(place, changed.to_json())
    for file in (BUILT, "llm_engine/1/rank0.engine", "llm_engine/1/bundle/model.onnx"):
        (copy / file).unlink()
    assert main(["build", "--check", str(copy), "--allow-missing-engine"]) == 0
    assert main(["build", "--check", str(copy)]) == 2
    told = "llm_engine/1/rank0.engine: found no engine, expected the engine: run the commands that"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        (BUILT, f"{BUILT}: found no such file, expected what trtllm-build wrote beside rank0"),
        ("llm_engine/1/rank0.engine", "llm_engine/1/rank0.engine: found no engine, expected the"),
    ],
)
def test_half_an_engine_may_not_be_missing(
    copy: Path, capsys: pytest.CaptureFixture[str], left_out: str, told: str
) -> None:
    (copy / left_out).unlink()
    assert main(["build", "--check", str(copy), "--allow-missing-engine"]) == 2
    out = capsys.readouterr().out
    assert told in out
    assert "--allow-missing-engine" not in out


@pytest.mark.parametrize(
    "change",
    [
        {"max_beam_width": 64},
        {"max_seq_len": 20},
        {"kv_cache_type": "CONTINUOUS"},
        {"max_batch_size": 0},
        {},
    ],
)
def test_the_check_and_the_server_agree_on_an_engine(copy: Path, change: dict[str, Any]) -> None:
    _edit_json(copy, BUILT, lambda d: d["build_config"].update(change))
    parameters = read_engine_parameters(copy / ENGINE)
    bundle = Bundle.open(BUNDLE)
    refused = engine_mismatches(
        read_engine_config(copy / BUILT.rpartition("/")[0]), parameters, needed_sizes(bundle)
    )
    assert [line.partition(": found ")[2] for line in _lines(copy)] == refused
    assert bool(refused) == bool(change)


def test_a_repository_that_is_not_there_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--check", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("no such directory") == 1


def test_a_directory_that_is_no_repository_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (line,) = _lines(tmp_path)
    assert line.startswith(".: found no adprior repository, expected what `adprior build` writes")


@pytest.mark.parametrize("name", contract.MODEL_NAMES)
def test_a_missing_model_is_one_line(copy: Path, name: str) -> None:
    shutil.rmtree(copy / name)
    told = "no such directory, expected the model, as `adprior build` writes it"
    assert _lines(copy) == [f"{name}: found {told}"]


def test_a_manifest_of_odd_values_says_what_was_expected_once(copy: Path) -> None:
    file = "tokenizer/1/bundle/" + MANIFEST
    _edit_json(copy, file, lambda d: d.update(beam_width="x"))
    told = f"{file}: found manifest: beam_width is 'x', expected a whole number"
    assert told in _lines(copy)


@pytest.mark.parametrize(
    "options",
    [
        ["--output", "o2"],
        ["--engine", "tensorrt-llm"],
        ["--precision", "fp16"],
        ["--dry-run"],
        ["--record-command", "x"],
        ["--examples", "elsewhere"],
    ],
)
def test_options_of_a_build_do_not_go_with_a_check(
    production: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["build", "--check", str(production), *options]) == 2
    assert f"{options[0]} does not go with --check" in capsys.readouterr().err


def test_the_contract_agrees_with_tensorrt_llms_own_configuration() -> None:
    config = parse_config(render(contract.LLM_ENGINE, Target.GPU))
    for tensors, official in ((config.input, INPUTS), (config.output, OUTPUTS)):
        for tensor in tensors:
            expected = official[tensor.name]
            assert pb.DataType.Name(tensor.data_type) == f"TYPE_{expected.dtype}"
            assert tuple(tensor.dims) == expected.dims
            assert tensor.HasField("reshape") == expected.scalar
    assert config.parameters.keys() <= PARAMETERS
    assert (len(INPUTS), len(OUTPUTS)) == (62, 21)
