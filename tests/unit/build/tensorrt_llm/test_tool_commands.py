from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adprior_build.tensorrt_llm.engine_sizes import EngineSizes
from adprior_build.tensorrt_llm.model_shape import FAMILIES, ModelShape
from adprior_build.tensorrt_llm.tool_commands import CACHE, Step, engine_steps, step_environment
from adprior_build.tensorrt_llm.tools import run_step
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


ASK_PLACES = """
import os, pathlib, tempfile
print(pathlib.Path.home(), tempfile.gettempdir(), os.environ["TORCH_EXTENSIONS_DIR"])
print(os.environ["HF_HUB_OFFLINE"])
"""


def test_a_step_keeps_its_home_and_its_compilers_caches_in_the_work_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose mounts /tmp noexec, and the image's HOME is there."""
    (tmp_path / CACHE).mkdir()
    for variable in ("HOME", "TMPDIR", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "/tmp")
    run_step(Step(name="ask", command=(sys.executable, "-c", ASK_PLACES)), tmp_path)
    place = tmp_path / CACHE
    assert (tmp_path / "ask.log").read_text().split() == [*[str(place)] * 3, "1"]
    kept = {name for name, value in step_environment(tmp_path).items() if value == str(place)}
    assert kept >= {"HOME", "TMPDIR", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"}
    assert kept >= {"TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "HF_HOME"}


@pytest.mark.parametrize("record", sorted(FLAGS.glob("*.json")), ids=lambda path: path.stem)
def test_a_list_of_flags_names_its_source(record: Path) -> None:
    document = json.loads(record.read_text())
    assert document["repository"] == "NVIDIA/TensorRT-LLM"
    assert all(len(source["commit"]) == 40 and source["path"] for source in document["sources"])
    assert document["flags"] == sorted(set(document["flags"]))
    assert all(flag.startswith("-") for flag in document["flags"])
