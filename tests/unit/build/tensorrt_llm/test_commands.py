from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from adprior_build.tensorrt_llm.commands import Paths, engine_steps
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.model_shape import FAMILIES, ModelShape
from adprior_build.tensorrt_llm.sizes import EngineSizes
from support.gpu_golden import CASES, COMMANDS, DEPLOYMENTS, MODELS, render, steps_of
from support.stand_in_tools import FLAGS, known_flags, tool_of

EVERY_SIZE = {
    "--max_batch_size",
    "--max_input_len",
    "--max_seq_len",
    "--max_beam_width",
    "--max_num_tokens",
    "--kv_cache_type",
    "--tokens_per_block",
    "--gpt_attention_plugin",
    "--gemm_plugin",
    "--use_paged_context_fmha",
    "--logits_dtype",
}


@pytest.mark.parametrize(("model", "deployment"), CASES)
def test_commands_are_the_golden_ones(model: str, deployment: str) -> None:
    golden = COMMANDS / f"{model}-{deployment}.sh"
    assert golden.read_text(encoding="utf-8") == render(model, deployment)


def test_there_is_no_other_golden_file() -> None:
    assert {path.stem for path in COMMANDS.glob("*.sh")} == {"-".join(case) for case in CASES}


def golden_commands() -> list[tuple[str, list[str]]]:
    """Read the commands out of the golden files, as a shell would."""
    found = []
    for path in sorted(COMMANDS.glob("*.sh")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        found += [(path.stem, shlex.split(line)) for line in lines]
    return found


@pytest.mark.parametrize(("case", "command"), golden_commands())
def test_every_flag_is_in_the_tools_own_list(case: str, command: list[str]) -> None:
    flags = {word for word in command if word.startswith("-")}
    assert flags
    assert flags <= known_flags(tool_of(command)), case


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("name", ["l4", "l4-fp8"])
def test_every_family_is_given_flags_that_its_script_has(architecture: str, name: str) -> None:
    deployment = Deployment.load(DEPLOYMENTS / f"{name}.toml")
    shape = ModelShape(
        architecture=architecture,
        hidden=64,
        layers=1,
        heads=4,
        kv_heads=2,
        head_size=16,
        intermediate=96,
        vocabulary=100,
        positions=2048,
    )
    paths = Paths.below(Path("/w"), Path("/e"))
    for step in engine_steps(deployment, shape, EngineSizes.of(deployment, 8), paths):
        flags = {word for word in step.command if word.startswith("-")}
        assert flags <= known_flags(tool_of(step.command))


@pytest.mark.parametrize(("model", "deployment"), CASES)
def test_every_size_is_set(model: str, deployment: str) -> None:
    compiling = steps_of(model, deployment)[-1]
    assert set(compiling.command) >= EVERY_SIZE


def test_paths_are_those_of_no_machine_in_particular() -> None:
    for path in COMMANDS.glob("*.sh"):
        assert not re.findall(r" (?!/build/|/repository/|/app/)/\S+", path.read_text())


def test_a_flag_that_the_tool_does_not_have_is_found() -> None:
    assert "--max_output_len" not in known_flags("trtllm-build")


@pytest.mark.parametrize("record", sorted(FLAGS.glob("*.json")), ids=lambda path: path.stem)
def test_a_record_of_flags_says_where_it_is_from(record: Path) -> None:
    document = json.loads(record.read_text())
    assert document["repository"] == "NVIDIA/TensorRT-LLM"
    assert all(len(source["commit"]) == 40 and source["path"] for source in document["sources"])
    assert document["flags"] == sorted(set(document["flags"]))
    assert all(flag.startswith("-") for flag in document["flags"])


def test_fp8_is_calibrated_and_its_matrices_are_not_the_plugins() -> None:
    quantise, compiling = steps_of("llama-3-8b", "h100-fp8")
    assert quantise.name == "quantise"
    command = dict(zip(compiling.command[1::2], compiling.command[2::2], strict=True))
    assert command["--gemm_plugin"] == "disable"
    assert command["--max_beam_width"] == "32"


def test_the_models_are_those_that_were_asked_for() -> None:
    assert {path.name for path in MODELS.iterdir()} == {case[0] for case in CASES}
