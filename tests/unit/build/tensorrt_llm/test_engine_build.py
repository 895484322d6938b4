"""`adprior build --engine tensorrt-llm` with a real small checkpoint and stand-ins of the tools."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from adprior_runtime.bundle import MANIFEST, Manifest
from adprior_runtime.cli import main
from adprior_runtime.commands import serve
from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES, TOKENIZER
from adprior_runtime.errors import AdpriorError, ArtefactError, InvalidInputError
from adprior_runtime.repository.model_configs import parse_config
from adprior_runtime.repository.tensorrt_llm_files import engine_differences, read_engine_config
from adprior_runtime.server.installation import Installation
from support.extras import modules_without
from support.paths import TOOL_OUTPUTS
from support.small_checkpoint import IDS, NAMES, run_without, run_without_torch
from support.stand_in_tools import StandIns

DEPLOYMENT = """
gpu = "L4"
memory_gib = 22.4
prompt_tokens = 64
beam_width = 8
concurrency = 4
spare_name_tokens = 2
"""
FP8 = DEPLOYMENT + 'quantisation = "fp8"\n'
Build = Callable[..., int]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def build(
    checkpoint: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Build:
    """Run the command with only the stand-ins in PATH."""

    def run(*options: str, tools: StandIns | None = None, deployment: str = DEPLOYMENT) -> int:
        tools = tools or StandIns(directory=tmp_path / "tools")
        if not tools.directory.exists():
            tools.write()
        monkeypatch.setenv("PATH", tools.path)
        (tmp_path / "deployment.toml").write_text(deployment)
        arguments = ["build", "--checkpoint", str(checkpoint), "--engine", "tensorrt-llm"]
        arguments += ["--deployment", str(tmp_path / "deployment.toml"), "--forecast-k", "3"]
        arguments += ["--output", str(repository), "--examples", str(tools.examples)]
        return main([*arguments, *options])

    return run


@pytest.fixture
def refused(
    build: Build, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a build that must fail: return its error line; it leaves only the work directory."""

    def run(*options: str, tools: StandIns | None = None, deployment: str = DEPLOYMENT) -> str:
        assert build(*options, tools=tools, deployment=deployment) == 2
        error = capsys.readouterr().err
        last = error.splitlines()[-1]
        assert last.startswith("adprior build: ")
        assert not repository.exists()
        assert not list(tmp_path.glob(".repository*"))
        return last

    return run


def parameters(repository: Path) -> dict[str, str]:
    config = parse_config((repository / LLM_ENGINE / "config.pbtxt").read_text())
    return {key: value.string_value for key, value in config.parameters.items()}


def test_a_dry_run_prints_the_commands_and_writes_all_but_the_engine(
    build: Build, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--dry-run", tools=StandIns(directory=repository.with_name("none"))) == 0
    printed = capsys.readouterr().out
    assert "KV cache available" in printed
    assert "models/core/gemma/convert_checkpoint.py" in printed
    cache = repository.with_name("repository.work") / "cache"
    assert f" HOME={cache} TMPDIR={cache} " in printed
    assert cache.is_dir()
    assert f"--output_dir {repository}/llm_engine/1 \\\n" in printed
    assert "  --max_beam_width 8 \\\n" in printed
    assert {path.name for path in repository.iterdir()} == set(MODEL_NAMES)
    version = repository / LLM_ENGINE / "1"
    assert not list(version.glob("*.engine"))
    assert not list(repository.rglob("model.onnx"))
    manifest = Manifest.load(repository / TOKENIZER / "1" / "bundle" / MANIFEST)
    assert (manifest.engine, manifest.beam_width) == ("tensorrt-llm", 8)
    assert "--dry-run" not in manifest.commands[-1]
    found = parameters(repository)
    assert found["gpt_model_path"] == "/models/llm_engine/1"
    assert found["max_beam_width"] == "8"
    assert found["kv_cache_free_gpu_mem_fraction"] == "0.9"
    assert found["normalize_log_probs"] == "false"


def test_torch_is_not_needed(checkpoint: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "deployment.toml").write_text(DEPLOYMENT)
    options = ["--engine", "tensorrt-llm", "--dry-run", "--forecast-k", "3"]
    options += ["--deployment", str(tmp_path / "deployment.toml"), "--output", str(repository)]
    run_without_torch("build", "--checkpoint", checkpoint, *options)
    assert (repository / LLM_ENGINE / "config.pbtxt").is_file()


def test_the_gpu_extra_is_enough_to_build_and_check_a_repository(
    checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = modules_without("gpu")
    assert {"tritonclient", "grpc", "torch"} <= absent
    tools = StandIns(directory=tmp_path / "tools").write()
    monkeypatch.setenv("PATH", tools.path)
    here = DEPLOYMENT + f'repository_path = "{repository}"\n'
    (tmp_path / "deployment.toml").write_text(here)
    options = ["--engine", "tensorrt-llm", "--forecast-k", "3", "--examples", str(tools.examples)]
    options += ["--deployment", str(tmp_path / "deployment.toml"), "--output", str(repository)]
    run_without(absent, "build", "--checkpoint", checkpoint, *options)
    run_without(absent, "build", "--check", repository)
    assert (repository / LLM_ENGINE / "1" / "rank0.engine").is_file()


def test_the_printed_commands_run_as_they_are(
    build: Build, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell runs what was printed; only the tools themselves are stand-ins."""
    tools = StandIns(directory=tmp_path / "tools").write()
    assert build("--dry-run", tools=tools) == 0
    printed = capsys.readouterr().out
    script = printed[printed.index("\nexport") : printed.rindex("\nadprior build:")]
    subprocess.run(["/bin/sh", "-e"], input=script, text=True, check=True, cwd=tmp_path)
    assert (repository / LLM_ENGINE / "1" / "rank0.engine").is_file()
    assert [Path(call[-1]).name for call in tools.calls]
    config = read_engine_config(repository / LLM_ENGINE / "1")
    assert engine_differences(config, parameters(repository)) == []


def test_an_engine_is_built_and_put_in_place(
    build: Build, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = StandIns(directory=tmp_path / "tools")
    assert build(tools=tools) == 0
    version = repository / LLM_ENGINE / "1"
    assert (version / "rank0.engine").read_bytes() == b"a stand-in's engine"
    built = read_engine_config(version)["build_config"]
    longest = Manifest.load(version / "bundle" / MANIFEST).longest_name_tokens
    assert built["max_seq_len"] == 64 + longest + 2
    assert built["max_batch_size"] == 4
    assert [call[0] for call in tools.calls] == ["python3", "trtllm-build"]
    assert not tmp_path.joinpath("repository.work").exists()
    assert "compile (2 of 2)" in capsys.readouterr().out


def test_fp8_is_calibrated_on_prompts(build: Build, tmp_path: Path) -> None:
    users = tmp_path / "users.jsonl"
    users.write_text('{"as_of": "2024-02-01", "profile": {"age": "30s"}, "history": []}\n' * 40)
    tools = StandIns(directory=tmp_path / "tools")
    assert build("--calibration-users", str(users), tools=tools, deployment=FP8) == 0
    assert tools.calls[0][1].endswith("quantize.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]\n", "line 1: "),
        ('{"as_of": "2024-02-01", "profile": {}, "history": []}\n' * 3, "3 users, expected at le"),
        (None, "No such file"),
    ],
)
def test_bad_calibration_users_are_refused_before_anything_is_written(
    refused: Callable[..., str], tmp_path: Path, text: str | None, message: str
) -> None:
    users = tmp_path / "users.jsonl"
    if text is not None:
        users.write_text(text)
    assert message in refused("--dry-run", "--calibration-users", str(users), deployment=FP8)
    assert not (tmp_path / "repository.work").exists()


@pytest.mark.parametrize("file", ["config.json", "training.json", "prompt.json"])
def test_a_deeply_nested_file_is_one_clear_line(
    refused: Callable[..., str], checkpoint: Path, tmp_path: Path, file: str
) -> None:
    nested = tmp_path / "nested"
    shutil.copytree(checkpoint, nested)
    (nested / file).write_text('{"a":' * 100_000)
    assert f"/{file}: not a " in refused("--checkpoint", str(nested), "--dry-run")


def test_a_vocabulary_that_is_too_small_is_refused(
    refused: Callable[..., str], checkpoint: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    shutil.copytree(checkpoint, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 1}))
    error = refused("--checkpoint", str(small), "--dry-run")
    assert error.startswith(f"adprior build: {small}: a name of the catalogue has token ")


def test_scaled_rotary_positions_of_a_gemma_are_refused(
    refused: Callable[..., str], checkpoint: Path, tmp_path: Path
) -> None:
    scaled = tmp_path / "scaled"
    shutil.copytree(checkpoint, scaled)
    config = json.loads((scaled / "config.json").read_text())
    config |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_parameters": None}
    (scaled / "config.json").write_text(json.dumps(config))
    error = refused("--checkpoint", str(scaled), "--dry-run")
    assert "/config.json: rotary positions are scaled ('linear'), which TensorRT-LLM's" in error


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"without": ("python3",)}, "TensorRT-LLM is not installed here; run this command inside"),
        (
            {"version": "none"},
            "TensorRT-LLM is not installed here; run this command inside nvcr.io",
        ),
        ({"version": "1.3.0"}, "TensorRT-LLM 1.3.0 is installed, expected 1.2.1"),
        ({"without": ("trtllm-build",)}, "trtllm-build: not found, though TensorRT-LLM 1.2.1 is"),
        ({"gpu": None}, "no NVIDIA driver is visible (no nvidia-smi); start the container with"),
        (
            {"gpu": (TOOL_OUTPUTS / "nvidia-smi-no-driver.txt").read_text(), "gpu_status": 9},
            "no NVIDIA driver or GPU is visible; start the container with --gpus all",
        ),
        ({"gpu": "No devices were found", "gpu_status": 6}, "nvidia-smi failed with status 6: No"),
        ({"gpu": "NVIDIA A10G, 23028"}, "the GPU is 'NVIDIA A10G', the deployment says L4"),
        ({"gpu": "NVIDIA L40S, 46068"}, "the GPU is 'NVIDIA L40S', the deployment says L4"),
        ({"gpu": "NVIDIA L4, 11000"}, "the GPU has 10.7 GiB, the deployment says 22.4"),
        ({"gpu": "NVIDIA L4, [N/A]"}, "expected a name and MiB"),
        (
            {"engine": {"max_beam_width": 1}},
            "found an engine of max_beam_width 1, expected 8, as config.pbtxt",
        ),
        ({"engine": {"max_seq_len": 12}}, "an engine of max_seq_len 12, expected at least"),
        (
            {"failing": {"trtllm-build": ["oom", 1]}},
            "step compile (trtllm-build) failed with status 1: the reason is in",
        ),
    ],
)
def test_a_machine_that_cannot_build_is_refused(
    refused: Callable[..., str], tmp_path: Path, tools: dict[str, object], message: str
) -> None:
    stand_ins = StandIns(directory=tmp_path / "tools", **tools)  # type: ignore[arg-type]
    assert message in refused(tools=stand_ins)


def test_missing_scripts_are_refused_with_their_directory(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "convert_checkpoint.py: not found" in refused("--examples", str(tmp_path / "elsewhere"))


def test_a_failed_step_shows_its_last_lines_and_the_remedy(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "".join(f"line {number}\n" for number in range(40))
    said += (TOOL_OUTPUTS / "trtllm-build-out-of-memory.txt").read_text()
    tools = StandIns(directory=tmp_path / "tools", failing={"trtllm-build": (said, 1)})
    assert build(tools=tools) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"adprior build: the last lines of {tmp_path}/repository.work/compile.log:"
    assert len(lines) == 1 + 15 + 1
    assert "  AssertionError" in lines
    assert "failed with status 1: the GPU ran out of memory; see that nothing else" in lines[-1]
    assert (tmp_path / "repository.work" / "compile.log").is_file()


def test_an_earlier_repository_stays_when_a_step_fails(
    build: Build, repository: Path, tmp_path: Path
) -> None:
    assert build() == 0
    before = (repository / LLM_ENGINE / "1" / "rank0.engine").stat().st_ino
    broken = StandIns(directory=tmp_path / "broken", failing={"convert_checkpoint": ("no", 1)})
    assert build(tools=broken) == 2
    assert (repository / LLM_ENGINE / "1" / "rank0.engine").stat().st_ino == before
    assert build() == 0  # it replaces the failed build's work directory


def test_a_dry_run_removes_no_engine(
    build: Build, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    assert build("--dry-run") == 2
    assert "holds an engine, which a dry run would remove" in capsys.readouterr().err
    assert (repository / LLM_ENGINE / "1" / "rank0.engine").is_file()


def test_a_foreign_work_directory_is_left_alone(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    error = refused("--work", str(tmp_path / "mine"))
    assert "exists and is not an earlier work directory" in error
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "deployment", "message"),
    [
        ("--forecast-k 9", DEPLOYMENT, "beam_width is 8, a forecast of 9 advertisers"),
        ("--beam-width 8", DEPLOYMENT, "--beam-width has no effect with --engine tensorrt-llm"),
        ("--search-mode beam", DEPLOYMENT, "--search-mode has no effect"),
        ("--precision int8", DEPLOYMENT, "--precision is for --engine onnx"),
        ("", FP8, "fp8 needs --calibration-users"),
        ("--calibration-users u", DEPLOYMENT, "--calibration-users goes with quantisation fp8"),
        ("", DEPLOYMENT.replace("= 64", "= 63"), "prompt_tokens is 63, the checkpoint's prompts"),
        ("", DEPLOYMENT.replace("22.4", "1.0"), "not even one user fits"),
        ("", DEPLOYMENT.replace("= 64", "= 4000"), "do not fit the model's positions of"),
        ("", DEPLOYMENT + "surprise = 1\n", "unknown surprise"),
        ("", DEPLOYMENT + 'dtype = "float16"\n', "dtype is float16, which the activations of"),
    ],
)
def test_options_and_deployments_that_do_not_fit_are_refused(
    refused: Callable[..., str], options: str, deployment: str, message: str
) -> None:
    assert message in refused("--dry-run", *options.split(), deployment=deployment)


def test_the_engines_options_go_together(
    checkpoint: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", "--checkpoint", str(checkpoint), "--output", str(repository)]
    assert main([*arguments, "--dry-run"]) == 2
    assert "--dry-run goes with --engine tensorrt-llm" in capsys.readouterr().err
    assert main([*arguments, "--engine", "tensorrt-llm"]) == 2
    assert "needs --checkpoint and --deployment" in capsys.readouterr().err


def test_a_new_catalogue_keeps_the_engine(
    build: Build, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless a name is longer than the engine's size."""
    here = DEPLOYMENT + 'kv_cache_share = 0.7\nrepository_path = "/srv/models"\n'
    assert build("--save-bundle", str(tmp_path / "bundle"), deployment=here) == 0
    assert parameters(repository)["kv_cache_free_gpu_mem_fraction"] == "0.7"
    again = ["build", "--bundle", str(tmp_path / "bundle"), "--engine", "tensorrt-llm"]
    again += ["--engine-from", str(repository / LLM_ENGINE / "1")]
    again += ["--catalogue", str(tmp_path / "catalogue.parquet")]
    again += ["--output", str(tmp_path / "again")]
    write_catalogue(tmp_path / "catalogue.parquet", NAMES[::-1])
    assert main(again) == 0
    engine = tmp_path / "again" / LLM_ENGINE / "1" / "rank0.engine"
    assert engine.samefile(repository / LLM_ENGINE / "1" / "rank0.engine")
    assert parameters(tmp_path / "again") == parameters(repository)
    write_catalogue(tmp_path / "catalogue.parquet", ["Many, many words", *NAMES[1:]])
    capsys.readouterr()
    assert main(again) == 2
    assert "found an engine of max_seq_len" in capsys.readouterr().err
    other = ["--engine", "onnx", "--output", str(engine)]
    assert main(["build", "--bundle", str(tmp_path / "bundle"), *other]) == 2
    assert "is for --engine tensorrt-llm; another engine needs" in capsys.readouterr().err


def test_an_existing_engine_gets_the_deployments_parameters(
    build: Build, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or else those of its repository, or else the defaults."""
    bundle = tmp_path / "bundle"
    assert build("--save-bundle", str(bundle)) == 0
    engine = repository / LLM_ENGINE / "1"
    (tmp_path / "alone").mkdir()
    for name in ("config.json", "rank0.engine"):
        shutil.copy(engine / name, tmp_path / "alone" / name)
    deployment = tmp_path / "other.toml"
    deployment.write_text(DEPLOYMENT + 'kv_cache_share = 0.6\nrepository_path = "/other"\n')
    again = ["build", "--bundle", str(bundle), "--engine", "tensorrt-llm"]
    for source, options, expected in (
        (engine, ["--deployment", str(deployment)], ("0.6", "/other/llm_engine/1")),
        (tmp_path / "alone", [], ("0.9", "/models/llm_engine/1")),
    ):
        output = tmp_path / f"again-{len(options)}"
        command = [*again, *options, "--engine-from", str(source), "--output", str(output)]
        assert main(command) == 0
        found = parameters(output)
        assert (found["kv_cache_free_gpu_mem_fraction"], found["gpt_model_path"]) == expected
    config = repository / LLM_ENGINE / "config.pbtxt"
    config.write_text(config.read_text().replace('"0.9"', '"lots"'))
    assert main([*again, "--engine-from", str(engine), "--output", str(tmp_path / "odd")]) == 2
    assert "fraction is 'lots', expected a share; give --deployment" in capsys.readouterr().err


def write_catalogue(path: Path, names: list[str]) -> None:
    pa.parquet.write_table(pa.table({"advertiser_id": IDS, "name": names}), path)


def test_a_server_that_fails_at_load_is_one_clear_line(
    build: Build,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`adprior serve` with a stand-in for a tritonserver that has the TensorRT-LLM backend."""
    assert build(deployment=DEPLOYMENT + f'repository_path = "{repository}"\n') == 0
    stand_in = tmp_path / "container" / "tritonserver"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\n# A stand-in.\nwhile read -r line; do echo "$line"; done'
        f" < '{TOOL_OUTPUTS / 'tritonserver-out-of-memory.log'}'\nexit 1\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent))
    capsys.readouterr()
    ports = ["--grpc-port", "28741", "--http-port", "28740", "--metrics-port", "28742"]
    assert main(["serve", "--repository", str(repository), *ports]) == 2
    error = capsys.readouterr().err
    assert error.startswith("adprior serve: model llm_engine: the GPU ran out of memory")
    assert error.count("\n") == 1


def _change_beam_width(repository: Path) -> None:
    path = repository / LLM_ENGINE / "1" / "config.json"
    config = json.loads(path.read_text())
    config["build_config"]["max_beam_width"] = 4
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda repository: (repository / LLM_ENGINE / "1" / "rank0.engine").unlink(),
            InvalidInputError,
            r"rank0\.engine: found no engine, expected the engine that config\.json",
        ),
        (_change_beam_width, ArtefactError, "max_beam_width 4, expected 8, as config.pbtxt says"),
        (
            lambda repository: repository.rename(repository.with_name("elsewhere")),
            InvalidInputError,
            r"config\.pbtxt looks for the engine in",
        ),
        (
            lambda repository: shutil.copytree(repository, repository.with_name("elsewhere")),
            InvalidInputError,
            r"config\.pbtxt looks for the engine in",
        ),
    ],
    ids=["missing", "other sizes", "moved", "copied"],
)
def test_a_wrong_engine_is_not_served(
    build: Build,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    kind: type[AdpriorError],
    message: str,
) -> None:
    assert build(deployment=DEPLOYMENT + f'repository_path = "{repository}"\n') == 0
    container = Installation(binary=Path("tritonserver"))
    monkeypatch.setattr(serve, "find_installation", lambda: container)
    change(repository)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    elsewhere = repository.with_name("elsewhere")
    place = elsewhere if elsewhere.exists() else repository
    with pytest.raises(kind, match=message):
        serve.run(parser.parse_args(["--repository", str(place)]))
