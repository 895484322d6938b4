from __future__ import annotations

import json
from pathlib import Path

import pytest

from adprior_build.tensorrt_llm.engine_sizes import EngineSizes
from adprior_build.tensorrt_llm.model_shape import FAMILIES, ModelShape
from adprior_build.tensorrt_llm.tool_commands import engine_steps
from support.gpu_golden import CASES, COMMANDS, load_deployment, render
from support.stand_in_tools import FLAGS, known_flags, tool_of


def test_commands_equal_the_golden_files() -> None:
    golden = {path.stem: path.read_text(encoding="utf-8") for path in COMMANDS.glob("*.sh")}
    assert golden == {"-".join(case): render(*case) for case in CASES}


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("name", ["l4", "l4-fp8"])
def test_every_flag_is_one_that_the_tool_declares(architecture: str, name: str) -> None:
    deployment = load_deployment(name)
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
    sizes = EngineSizes.of(deployment, 8)
    for step in engine_steps(deployment, shape, sizes, work=Path("/w"), engine=Path("/e")):
        flags = {word for word in step.command if word.startswith("-")}
        assert set() < flags <= known_flags(tool_of(step.command))


@pytest.mark.parametrize("record", sorted(FLAGS.glob("*.json")), ids=lambda path: path.stem)
def test_a_list_of_flags_names_its_source(record: Path) -> None:
    document = json.loads(record.read_text())
    assert document["repository"] == "NVIDIA/TensorRT-LLM"
    assert all(len(source["commit"]) == 40 and source["path"] for source in document["sources"])
    assert document["flags"] == sorted(set(document["flags"]))
    assert all(flag.startswith("-") for flag in document["flags"])
