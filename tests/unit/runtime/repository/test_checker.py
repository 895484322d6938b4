"""``adprior build --check`` on a whole repository, and on copies of it with one fault each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from adprior_runtime import contract
from adprior_runtime.bundle import MANIFEST, ONNX_MODEL_FILE, Manifest
from adprior_runtime.cli import main
from adprior_runtime.contract import Target
from adprior_runtime.repository.checker import check_repository
from adprior_runtime.repository.checks import config_files
from adprior_runtime.repository.checks.config_files import read_configs
from adprior_runtime.repository.checks.configs import check_configs
from adprior_runtime.repository.checks.findings import Level
from adprior_runtime.repository.checks.tensorrt_llm_engine import check_engine
from adprior_runtime.repository.model_configs import parse_config, render
from adprior_runtime.repository.tensorrt_llm_names import INPUTS, OUTPUTS, PARAMETERS
from stand_ins.engine_files import add_engine

ENGINE, RANKING = "llm_engine/config.pbtxt", "advertiser_ranking/config.pbtxt"
RETRIEVAL, DECODER = "advertiser_retrieval/config.pbtxt", "advertiser_decoder/config.pbtxt"
TOKENIZER = "tokenizer/config.pbtxt"
BUILT = "llm_engine/1/config.json"


@pytest.fixture(scope="module")
def production(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an engine beside its ONNX model: it serves both targets."""
    repository = tmp_path_factory.mktemp("production") / "repository"
    assert main(["build", "--bundle", str(tiny_bundle), "--output", str(repository)]) == 0
    add_engine(repository, tiny_bundle)
    return repository


@pytest.fixture
def copy(production: Path, tmp_path: Path) -> Path:
    """A copy of hard links: a test may replace files, but must not write into them."""
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


def _without(kind: str, name: str) -> Callable[[Any], None]:
    return lambda config: getattr(config, kind).remove(_named(getattr(config, kind), name))


CONFIG_FAULTS: list[tuple[str, Callable[[Any], object], str]] = [
    # the file, the change, what the line says after the file
    (ENGINE, lambda c: setattr(c, "name", "tensorrt_llm"), "name 'tensorrt_llm'"),
    (ENGINE, lambda c: setattr(c, "backend", "python"), "backend 'python'"),
    (
        DECODER,
        lambda c: setattr(c, "max_batch_size", 64),
        "max_batch_size: 64, expected max_batch_size: 16",
    ),
    (ENGINE, _without("input", "end_id"), "no input end_id"),
    (
        ENGINE,
        _tensor("input", "beam_width", data_type=pb.TYPE_INT64),
        "input beam_width as INT64 [1]",
    ),
    (ENGINE, _tensor("input", "input_ids", dims=[512]), "input input_ids as INT32 [512]"),
    (
        ENGINE,
        _tensor("input", "input_ids", allow_ragged_batch=False),
        "input input_ids as INT32 [-1], expected INT32 [-1] allow_ragged_batch",
    ),
    (
        ENGINE,
        lambda c: _named(c.input, "end_id").ClearField("reshape"),
        "input end_id as INT32 [1], expected INT32 [1] reshaped to []",
    ),
    (
        ENGINE,
        lambda c: c.input.add(name="beam_widht", data_type=pb.TYPE_INT32, dims=[1], optional=True),
        "an input beam_widht",
    ),
    (
        ENGINE,
        _tensor("output", "cum_log_probs", data_type=pb.TYPE_FP16),
        "output cum_log_probs as FP16 [-1]",
    ),
    (DECODER, _without("output", "MISSING_MASS"), "no output MISSING_MASS"),
    (
        ENGINE,
        _parameter("normalize_log_probs", "true"),
        "parameter normalize_log_probs 'true', expected 'false'",
    ),
    (
        ENGINE,
        _parameter("enable_kv_cache_reuse", "False"),
        "parameter enable_kv_cache_reuse 'False', expected 'true'",
    ),
    (ENGINE, _parameter("exclude_input_in_output", None), "no parameter exclude_input_in_output"),
    (
        ENGINE,
        _parameter("max_beam_witdh", "32"),
        "parameter max_beam_witdh, expected a name that TensorRT-LLM reads",
    ),
    (
        ENGINE,
        _parameter("max_beam_width", "7"),
        "parameter max_beam_width '7', expected 32, the bundle's beam_width",
    ),
    (
        ENGINE,
        _parameter("max_beam_width", "wide"),
        "parameter max_beam_width 'wide', expected a whole number",
    ),
    (
        ENGINE,
        _parameter("gpt_model_path", "/opt/engine"),
        "parameter gpt_model_path '/opt/engine', expected the place of llm_engine/1",
    ),
    (
        ENGINE,
        lambda c: c.dynamic_batching.default_queue_policy.ClearField("max_queue_size"),
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 5000000 allow",
    ),
    (
        ENGINE,
        lambda c: setattr(c.instance_group[0], "count", 2),
        "instance_group { count: 2 kind: KIND_CPU }, exp",
    ),
    (
        ENGINE,
        lambda c: setattr(c.model_transaction_policy, "decoupled", True),
        "model_transaction_policy { decoupled: true }, expected model",
    ),
    (
        RETRIEVAL,
        lambda c: setattr(c.response_cache, "enable", True),
        "response_cache { enable: true }, exp",
    ),
    (
        RANKING,
        lambda c: c.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU),
        "instance_group { count: 1 kind: KIND_CPU }, expected no instance_group",
    ),
    (
        RETRIEVAL,
        lambda c: setattr(c, "max_batch_size", 32),
        "max_batch_size: 32, expected max_batch_size: 16",
    ),
    (
        RANKING,
        lambda c: _step(c, "llm_engine").input_map.pop("end_id"),
        "no input_map for end_id in step llm_engine",
    ),
    (
        RANKING,
        lambda c: _step(c, "prior_head").input_map.update({"LOGITS": "BASE_LOGITS"}),
        "input_map of LOGITS in step prior_head to 'BASE_LOGITS', expected none",
    ),
    (
        RETRIEVAL,
        lambda c: _step(c, "llm_engine").output_map.pop("cum_log_probs"),
        "no output_map for cum_log_probs in step llm_engine, expected cum_log_probs",
    ),
    (
        RANKING,
        lambda c: c.ensemble_scheduling.step.remove(_step(c, "prior_head")),
        "the steps tokenizer, llm_engine, advertiser_decoder",
    ),
    (
        "llm_engine/configs/cpu.pbtxt",
        _without("output", "frontier_log_mass"),
        "no output frontier_log_mass",
    ),
    (
        "advertiser_retrieval/configs/cpu.pbtxt",
        lambda c: _step(c, "advertiser_decoder").input_map.pop("EXCLUDED_ADVERTISER_IDS"),
        "no input_map for EXCLUDED_ADVERTISER_IDS in step advertiser_decoder",
    ),
    (
        RANKING,
        _cross("llm_engine", "input_map", "end_id", "pad_id"),
        "input_map of end_id in step llm_engine to 'pad_id', expected 'end_id'",
    ),
    (
        RETRIEVAL,
        _cross("tokenizer", "output_map", "end_id", "pad_id"),
        "output_map of pad_id in step tokenizer to 'end_id', expected 'pad_id'",
    ),
    (
        RETRIEVAL,
        lambda c: setattr(_step(c, "tokenizer"), "model_version", 1),
        "model_version 1 of step tokenizer, expected -1",
    ),
    (
        RETRIEVAL,
        lambda c: setattr(_step(c, "tokenizer"), "model_namespace", "/models"),
        "model_namespace '/models' of step tokenizer, expected none",
    ),
    (
        ENGINE,
        lambda c: c.version_policy.specific.versions.append(7),
        "version_policy { specific { versions: 7 } }, expected no version_policy",
    ),
    (
        DECODER,
        _parameter("EXECUTION_ENV_PATH", "/tmp/environment.tar.gz"),
        "parameter EXECUTION_ENV_PATH '/tmp/environment.tar.gz', expected only the contract's",
    ),
    (
        ENGINE,
        _parameter("gpt_model_path", "models/llm_engine/1"),
        "parameter gpt_model_path 'models/llm_engine/1', expected a path from /",
    ),
    (
        ENGINE,
        _parameter("kv_cache_free_gpu_mem_fraction", "lots"),
        "parameter kv_cache_free_gpu_mem_fraction 'lots', expected a share, above 0 and below 1",
    ),
    (
        ENGINE,
        _parameter("kv_cache_free_gpu_mem_fraction", "3"),
        "parameter kv_cache_free_gpu_mem_fraction '3', expected a share",
    ),
    (
        ENGINE,
        _parameter("max_attention_window_size", "8"),
        "parameter max_attention_window_size '8', expected only the contract's",
    ),
    (
        DECODER,
        lambda c: setattr(_named(c.output, "EXACT"), "label_filename", "labels.txt"),
        'output EXACT as BOOL [1] label_filename: "labels.txt", expected BOOL [1]',
    ),
]


def _line_id(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("file", "change", "line"), CONFIG_FAULTS, ids=_line_id)
def test_a_fault_in_a_configuration_is_named(
    copy: Path, file: str, change: Callable[[Any], object], line: str
) -> None:
    _edit(copy, file, change)
    assert any(found.startswith(f"{file}: found {line}") for found in _lines(copy)), _lines(copy)


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
def test_the_loss_of_any_line_of_a_configuration_is_found(
    copy: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    # Only one file changes.
    monkeypatch.setattr(config_files, "parse_config", cache(parse_config))
    lines = (copy / file).read_text().splitlines()
    for index, line in enumerate(lines):
        _write(copy / file, _without_line(lines, index))
        configs, findings = read_configs(copy)
        findings += check_configs(configs, Level.FULL)
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


FILE_FAULTS: list[tuple[Callable[[Path], object], str]] = [
    # the change, what a line begins with
    (
        lambda copy: _write(copy / TOKENIZER, ""),
        f"{TOKENIZER}: found name '', expected 'tokenizer'",
    ),
    (
        lambda copy: _exchange(copy, TOKENIZER, DECODER),
        f"{TOKENIZER}: found name 'advertiser_decoder', expected 'tokenizer'",
    ),
    (
        lambda copy: _write(copy / "llm_engine/configs/mine.pbtxt", "input {"),
        "llm_engine/configs/mine.pbtxt: found a configuration that does not parse",
    ),
    (
        _open_to_others,
        f"{DECODER}: found a file or directory that every user of this machine may write",
    ),
    (
        lambda copy: _edit_json(
            copy, f"prior_head/1/bundle/{MANIFEST}", lambda d: d.update(forecast_k=8)
        ),
        f"prior_head/1/bundle/{MANIFEST}: found corrupt or edited: its bundle_id is ",
    ),
    (
        lambda copy: _write(copy / BUILT, "[" * 100_000),
        f"{BUILT}: found not an engine's configuration",
    ),
    (
        lambda copy: _write(copy / "tokenizer/1/bundle" / MANIFEST, "[" * 100_000),
        "tokenizer/1/bundle/manifest.json: found not a bundle's manifest",
    ),
    (
        lambda copy: _write(copy / ENGINE, "max_batch_size: ${triton_max_batch_size}"),
        f"{ENGINE}: found a configuration that does not parse",
    ),
    (lambda copy: (copy / DECODER).unlink(), f"{DECODER}: found no such file"),
    (
        lambda copy: (copy / ".ipynb_checkpoints").mkdir(),
        ".ipynb_checkpoints: found a directory without config.pbtxt",
    ),
    (
        lambda copy: (copy / "advertiser_ranking/1").rmdir(),
        "advertiser_ranking: found the versions none",
    ),
    (
        lambda copy: (copy / "tokenizer/1/model.py").unlink(),
        "tokenizer/1/model.py: found no such file",
    ),
    (
        lambda copy: (copy / "tokenizer/1/bundle" / MANIFEST).unlink(),
        "tokenizer/1/bundle/manifest.json: found not a bundle's manifest",
    ),
    (_swap_bundle, "prior_head/1/bundle/manifest.json: found the manifest of bundle c0ffee000000"),
    (
        lambda copy: _write(copy / "llm_engine/1/rank0.engine", b""),
        "llm_engine/1/rank0.engine: found an empty file",
    ),
    (
        lambda copy: _edit_json(
            copy, BUILT, lambda d: d["pretrained_config"]["mapping"].update(world_size=10_000)
        ),
        f"{BUILT}: found an engine for 10000 GPUs (world_size), expected one",
    ),
    (
        lambda copy: _write(copy / "llm_engine/1/rank1.engine", b"engine"),
        "llm_engine/1: found an engine for 2 GPUs, expected one file, rank0.engine",
    ),
    (
        lambda copy: (copy / "llm_engine/1/rank0.engine").rename(
            copy / "llm_engine/1/rank1.engine"
        ),
        "llm_engine/1: found rank1.engine, expected one file, rank0.engine",
    ),
    (
        lambda copy: (copy / BUILT).unlink(),
        f"{BUILT}: found no such file, expected what trtllm-build wrote beside rank0.engine",
    ),
    (lambda copy: _write(copy / BUILT, "[]"), f"{BUILT}: found not an engine's configuration"),
    (
        _size("max_beam_width", 64),
        f"{BUILT}: found an engine of max_beam_width 64, expected 32, the beam width of every",
    ),
    (
        lambda copy: _edit_json(
            copy,
            BUILT,
            lambda d: d["pretrained_config"].update(quantization={"kv_cache_quant_algo": "FP8"}),
        ),
        f"{BUILT}: found a quantised KV cache (kv_cache_quant_algo FP8), expected none",
    ),
]

FULL_LEVEL_FILE_FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda copy: _exchange(copy, ENGINE, "llm_engine/configs/cpu.pbtxt"),
        "llm_engine/configs/cpu.pbtxt: found backend 'tensorrtllm', expected 'python'",
    ),
    (
        lambda copy: (copy / "llm_engine/configs/cpu.pbtxt").unlink(),
        "llm_engine/configs/cpu.pbtxt: found no such file",
    ),
    (lambda copy: (copy / "tokenizer/2").mkdir(), "tokenizer: found the versions 1, 2"),
    (
        lambda copy: (copy / "llm_engine/1/rank0.engine").unlink(),
        "llm_engine/1/rank0.engine: found no engine",
    ),
    (
        lambda copy: _write(copy / "tokenizer/1/bundle/prompt.json", '{"a":' * 100_000),
        "tokenizer/1/bundle/prompt.json: found sha256 ",
    ),
    (
        lambda copy: _write(copy / "prior_head/1/model.py", "import os\n"),
        "prior_head/1/model.py: found another program",
    ),
    (
        lambda copy: _write(copy / "advertiser_decoder/1/bundle/trie/offsets.npy", b"\x00"),
        "advertiser_decoder/1/bundle/trie/offsets.npy: found sha256 6e340b9cffb3…",
    ),
    (
        lambda copy: (copy / "tokenizer/1/bundle/prompt.json").unlink(),
        "tokenizer/1/bundle/prompt.json: found no such file",
    ),
    (
        lambda copy: _edit_json(copy, BUILT, lambda d: d["pretrained_config"].update(vocab_size=9)),
        f"{BUILT}: found pretrained_config.vocab_size 9",
    ),
]


@pytest.mark.parametrize(("plant", "line"), [*FILE_FAULTS, *FULL_LEVEL_FILE_FAULTS], ids=_line_id)
def test_a_fault_in_the_files_is_named(
    copy: Path, plant: Callable[[Path], object], line: str
) -> None:
    plant(copy)
    assert any(found.startswith(line) for found in _lines(copy)), _lines(copy)
    found_early = any(found.startswith(line) for found in _lines(copy, Level.QUICK))
    assert found_early == ((plant, line) in FILE_FAULTS)


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
        f"{DECODER}: found output EXACT as INT32",
        f"{RANKING}: found the steps tokenizer",
    ]


def _add_model(copy: Path) -> None:
    (copy / "popularity/1").mkdir(parents=True)
    _write(copy / "popularity/config.pbtxt", 'name: "popularity" backend: "python"')


def _reverse_steps(config: Any) -> None:
    steps = [*config.ensemble_scheduling.step][::-1]
    del config.ensemble_scheduling.step[:]
    config.ensemble_scheduling.step.extend(steps)


def _remove_engine(copy: Path) -> None:
    for file in (BUILT, "llm_engine/1/rank0.engine"):
        (copy / file).unlink()


@pytest.mark.parametrize(
    ("serves_engine", "change"),
    [
        (False, _add_model),
        (True, _add_model),
        (False, lambda copy: _edit(copy, ENGINE, lambda c: setattr(c, "backend", "python"))),
        (False, lambda copy: _edit(copy, ENGINE, _without("input", "end_id"))),
        (True, lambda copy: (copy / "llm_engine/configs/cpu.pbtxt").unlink()),
        (False, lambda copy: (copy / "tokenizer/2").mkdir()),
        (False, lambda copy: _edit(copy, DECODER, _tensor("output", "EXACT", dims=[-1]))),
        (False, lambda copy: _edit(copy, RANKING, _reverse_steps)),
        (False, lambda copy: _write(copy / BUILT, "{}")),
        (True, lambda copy: _edit(copy, ENGINE, _parameter("gpt_model_path", "/opt/engine"))),
    ],
)
def test_the_quick_level_accepts_what_can_be_served(
    copy: Path, serves_engine: bool, change: Callable[[Path], object]
) -> None:
    if not serves_engine:
        _remove_engine(copy)
    change(copy)
    assert _lines(copy, Level.QUICK) == []


def test_a_build_does_not_check_what_depends_on_the_repositorys_place(copy: Path) -> None:
    _edit(copy, ENGINE, _parameter("gpt_model_path", "/opt/engine"))
    _open_to_others(copy)
    assert len(_lines(copy)) == 2
    assert check_repository(copy, is_being_built=True) == []


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


def test_a_fault_in_a_file_that_both_targets_read_is_reported_once(copy: Path) -> None:
    _edit(copy, DECODER, lambda c: setattr(c, "backend", "java"))
    assert _lines(copy) == [f"{DECODER}: found backend 'java', expected 'python'"]


def test_an_engine_may_be_missing_if_the_option_allows_it(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run leaves a bundle for TensorRT-LLM, no ONNX model and no engine."""
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
    expected = (
        "llm_engine/1/rank0.engine: found no engine, expected the engine: run the commands that"
    )
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (BUILT, f"{BUILT}: found no such file, expected what trtllm-build wrote beside rank0"),
        ("llm_engine/1/rank0.engine", "llm_engine/1/rank0.engine: found no engine, expected the"),
    ],
)
def test_an_engine_or_its_configuration_alone_may_not_be_missing(
    copy: Path, capsys: pytest.CaptureFixture[str], left_out: str, expected: str
) -> None:
    (copy / left_out).unlink()
    assert main(["build", "--check", str(copy), "--allow-missing-engine"]) == 2
    out = capsys.readouterr().out
    assert expected in out
    assert "--allow-missing-engine" not in out


def test_a_missing_repository_is_one_clear_line(
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
    expected = "no such directory, expected the model, as `adprior build` writes it"
    assert _lines(copy) == [f"{name}: found {expected}"]


def test_a_manifest_with_a_wrong_type_states_the_expected_one_once(copy: Path) -> None:
    file = "tokenizer/1/bundle/" + MANIFEST
    _edit_json(copy, file, lambda d: d.update(beam_width="x"))
    expected = f"{file}: found manifest: beam_width is 'x', expected a whole number"
    assert expected in _lines(copy)


@pytest.mark.parametrize(
    "options",
    [
        ["--output", "o2"],
        ["--engine", "tensorrt-llm"],
        ["--precision", "int8"],
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
    config = parse_config(render(contract.LLM_ENGINE, Target.TENSORRT_LLM))
    for tensors, official in ((config.input, INPUTS), (config.output, OUTPUTS)):
        for tensor in tensors:
            expected = official[tensor.name]
            assert pb.DataType.Name(tensor.data_type) == f"TYPE_{expected.dtype}"
            assert tuple(tensor.dims) == expected.dims
            assert tensor.HasField("reshape") == expected.scalar
    assert config.parameters.keys() <= PARAMETERS
    assert (len(INPUTS), len(OUTPUTS)) == (62, 21)
