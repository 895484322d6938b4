from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository.model_configs import render_tree, set_parameters
from adprior_runtime.repository.tensorrt_llm_files import (
    NeededSizes,
    engine_differences,
    find_engine,
    read_engine_config,
    read_engine_parameters,
)

NEEDED = NeededSizes(prompt_tokens=256, name_tokens=8, beam_width=32, concurrency=4)
PARAMETERS = {
    "gpt_model_type": "inflight_fused_batching",
    "max_beam_width": "32",
    "enable_kv_cache_reuse": "true",
}
# The form of what trtllm-build writes; the sizes are ours.
ENGINE: dict[str, Any] = {
    "version": "1.2.1",
    "pretrained_config": {"architecture": "LlamaForCausalLM"},
    "build_config": {
        "max_input_len": 256,
        "max_seq_len": 264,
        "max_batch_size": 4,
        "max_beam_width": 32,
        "max_num_tokens": 1056,
        "kv_cache_type": "PAGED",
        "plugin_config": {"remove_input_padding": True, "use_paged_context_fmha": True},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    config = deepcopy(ENGINE)
    *way, last = path.split(".")
    place = config
    for key in way:
        place = place[key]
    place[last] = value
    return config


def _differences(*arguments: Any) -> list[str]:
    return [f"{found}, expected {other}" for found, other in engine_differences(*arguments)]


def test_an_engine_that_fits() -> None:
    assert _differences(ENGINE, PARAMETERS, NEEDED) == []
    assert _differences(ENGINE, PARAMETERS) == []


@pytest.mark.parametrize(
    ("architecture", "dtype", "is_refused"),
    [
        ("Gemma3ForCausalLM", "float16", True),
        ("Gemma3ForCausalLM", "bfloat16", False),
        ("LlamaForCausalLM", "float16", False),
    ],
)
def test_an_engine_of_gemma_3_in_float16_is_refused(
    architecture: str, dtype: str, *, is_refused: bool
) -> None:
    engine = changed("pretrained_config", {"architecture": architecture, "dtype": dtype})
    told = [
        "an engine of Gemma3ForCausalLM in float16 (dtype), "
        "expected bfloat16: its activations overflow float16"
    ]
    assert _differences(engine, PARAMETERS, NEEDED) == (told if is_refused else [])


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("version", "1.1.0", "of TensorRT-LLM 1.1.0, expected 1.2.1"),
        ("version", None, "of TensorRT-LLM None, expected 1.2.1"),
        ("build_config.max_beam_width", 1, "max_beam_width 1, expected 32, as config.pbtxt says"),
        ("build_config.max_input_len", 255, "max_input_len 255, expected at least 256"),
        ("build_config.max_seq_len", 263, "max_seq_len 263, expected at least 264"),
        ("build_config.max_batch_size", 3, "max_batch_size 3, expected at least 4"),
        ("build_config.max_num_tokens", None, "max_num_tokens None, expected at least 256"),
        ("build_config.kv_cache_type", "CONTINUOUS", "kv_cache_type CONTINUOUS, expected PAGED"),
        ("build_config.plugin_config.remove_input_padding", False, "without remove_input_padding"),
        ("build_config.plugin_config.use_paged_context_fmha", False, "enable_kv_cache_reuse needs"),
    ],
)
def test_an_engine_built_for_something_else(path: str, value: object, told: str) -> None:
    found = _differences(changed(path, value), PARAMETERS, NEEDED)
    assert any(told in line for line in found)
    assert all("\n" not in line for line in found)


def test_a_beam_width_that_is_not_a_number() -> None:
    found = _differences(ENGINE, PARAMETERS | {"max_beam_width": "${max_beam_width}"})
    assert found == ["max_beam_width '${max_beam_width}' in config.pbtxt, expected a whole number"]


def test_requests_of_another_width() -> None:
    needed = NeededSizes(prompt_tokens=256, name_tokens=8, beam_width=16)
    assert _differences(ENGINE, PARAMETERS, needed) == [
        "an engine of max_beam_width 32, expected 16, the beam width of every request"
    ]


def test_the_committed_configuration_can_be_read(tmp_path: Path) -> None:
    text = set_parameters(render_tree()["llm_engine/config.pbtxt"], {"max_beam_width": "7"})
    (tmp_path / "config.pbtxt").write_text(text)
    parameters = read_engine_parameters(tmp_path / "config.pbtxt")
    assert parameters["max_beam_width"] == "7"
    assert parameters["enable_kv_cache_reuse"] == "true"
    (tmp_path / "config.pbtxt").write_text("name: ${name}")
    with pytest.raises(ArtefactError, match="not a model's configuration"):
        read_engine_parameters(tmp_path / "config.pbtxt")


def test_an_engine_is_found_by_its_file(tmp_path: Path) -> None:
    assert find_engine(tmp_path) is None
    (tmp_path / "rank0.engine").touch()
    assert find_engine(tmp_path) == tmp_path / "rank0.engine"
    (tmp_path / "rank1.engine").touch()
    with pytest.raises(ArtefactError, match=r"an engine for 2 GPUs, .*; build it for one GPU"):
        find_engine(tmp_path)
    (tmp_path / "rank0.engine").unlink()
    with pytest.raises(ArtefactError, match=r"rank1\.engine, expected one file, rank0\.engine"):
        find_engine(tmp_path)


def test_a_malformed_document_is_reported() -> None:
    odd = {"build_config": {"plugin_config": []}, "pretrained_config": 3}
    assert len(_differences(odd, PARAMETERS, NEEDED)) == 10


@pytest.mark.parametrize("text", ["", "[]", '{"version": "1.2.1"}', "[" * 100_000])
def test_a_file_that_is_not_a_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtefactError, match="not an engine's configuration"):
        read_engine_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(ENGINE))
    assert read_engine_config(tmp_path) == ENGINE
