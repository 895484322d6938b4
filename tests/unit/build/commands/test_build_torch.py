"""``adprior build --engine torch``: the bundle, its forecasts and its model in Triton."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adprior_runtime import contract
from adprior_runtime.bundle import ARCHITECTURE_FILE, MANIFEST, TORCH_WEIGHTS_FILE, Bundle, Manifest
from adprior_runtime.cli import main
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.forecast.search_step import SearchStep
from adprior_runtime.prompt.context import parse_context
from support.fake_backend import Request, load_model
from support.paths import DEMO
from support.tiny_checkpoint import write_tiny_checkpoint

USERS = sorted((DEMO / "users").glob("*.json"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("torch")
    write_tiny_checkpoint(place / "checkpoint")
    return place


@pytest.fixture(scope="module")
def built(place: Path) -> Callable[[str], Path]:
    """Return a function that builds a bundle in a precision, and with products if given."""

    def build(form: str) -> Path:
        bundle, repository = place / form, place / f"{form}-repository"
        if not bundle.exists():
            source = ["--checkpoint", str(place / "checkpoint"), "--engine", "torch"]
            kept = ["--save-bundle", str(bundle), "--output", str(repository)]
            precision, *products = form.split()
            chosen = ["--precision", precision, *(f"--products={each}" for each in products)]
            assert main(["build", *source, *chosen, *kept]) == 0
        return bundle

    return build


def test_it_forecasts_as_the_onnx_engine_with_a_certificate(
    built: Callable[[str], Path], tiny_bundle: Path
) -> None:
    mine, theirs = Forecaster(built("fp32"), threads=1), Forecaster(tiny_bundle, threads=1)
    for path in USERS:
        user = parse_context(path.read_bytes())
        found, expected = mine.forecast(user), theirs.forecast(user)
        assert found.exact
        np.testing.assert_array_equal(found.advertiser_ids, expected.advertiser_ids)
        np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)


def test_the_manifest_records_the_engine_and_its_error(built: Callable[[str], Path]) -> None:
    single, half = (Manifest.load(built(each) / MANIFEST) for each in ("fp32", "bf16"))
    assert (single.engine, single.precision, single.precision_loss) == ("torch", "fp32", 0.0)
    assert (half.engine, half.precision) == ("torch", "bf16")
    assert 1e-5 <= single.log_prob_error < 1e-3
    assert 1e-5 <= half.log_prob_error < 1e-3
    assert half.precision_loss > 1e-3
    assert "model.onnx" not in single.files


def test_bfloat16_takes_half_of_the_file_and_keeps_the_proofs(built: Callable[[str], Path]) -> None:
    sizes = [(built(each) / TORCH_WEIGHTS_FILE).stat().st_size for each in ("fp32", "bf16")]
    assert sizes[1] < 0.6 * sizes[0]
    forecaster = Forecaster(built("bf16"), threads=1)
    assert all(forecaster.forecast(parse_context(path.read_bytes())).exact for path in USERS)


@pytest.mark.parametrize("form", ["bf16 bf16-parts", "fp32 bf16-parts"])
def test_products_in_parts_are_recorded_and_keep_the_proofs(
    built: Callable[[str], Path], form: str
) -> None:
    precision, products = form.split()
    manifest = Manifest.load(built(form) / MANIFEST)
    assert (manifest.precision, manifest.products) == (precision, products)
    assert manifest.error_device == "cpu"
    assert 1e-5 <= manifest.log_prob_error < 1e-3
    mine, theirs = Forecaster(built(form), threads=1), Forecaster(built(precision), threads=1)
    for path in USERS:
        user = parse_context(path.read_bytes())
        found, expected = mine.forecast(user), theirs.forecast(user)
        assert found.exact
        np.testing.assert_array_equal(found.advertiser_ids, expected.advertiser_ids)
        np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-2)


def test_the_build_says_where_products_in_parts_were_checked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--checkpoint", str(place / "checkpoint"), "--engine", "torch"]
    options = ["--precision", "bf16", "--products", "bf16-parts", "--output", str(tmp_path / "out")]
    assert main(["build", *source, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("the engine agrees with the checkpoint to" in line for line in lines)
    assert (
        "adprior build: products in parts of bfloat16, checked on cpu: to serve them on a GPU, "
        "build there with --device cuda"
    ) in lines


def test_a_gpu_refuses_products_in_parts_that_were_checked_on_a_cpu(
    built: Callable[[str], Path],
) -> None:
    message = (
        "^device cuda: the bundle's products bf16-parts were checked on cpu, and a GPU's tensor "
        "cores sum less exactly: build it with --device cuda$"
    )
    with pytest.raises(EnvironmentProblemError, match=message):
        TorchEngine.of_bundle(Bundle.open(built("bf16 bf16-parts")), device="cuda")


def test_its_repository_is_complete(
    built: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = built("fp32").with_name("fp32-repository")
    assert main(["build", "--check", str(repository)]) == 0
    for name in (ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE):
        path = repository / contract.LLM_ENGINE / "1" / "bundle" / name
        path.rename(tmp_path / name)
        capsys.readouterr()
        assert main(["build", "--check", str(repository)]) == 2
        assert f"{name}: found no such file" in capsys.readouterr().out
        (tmp_path / name).rename(path)


@pytest.mark.usefixtures("_backend")
def test_the_model_in_triton_runs_the_engine_that_the_bundle_names(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    from adprior_runtime.triton.llm_engine import TritonPythonModel  # noqa: PLC0415

    bundle = built("fp32")
    model = load_model(TritonPythonModel, tmp_path, bundle)
    forecaster = Forecaster(bundle, threads=1)
    prompt = forecaster.prompt_ids(USERS[0].read_bytes())
    tensors: dict[str, Any] = {
        contract.INPUT_IDS: prompt,
        contract.INPUT_LENGTHS: [len(prompt)],
        contract.REQUEST_OUTPUT_LEN: [forecaster.bundle.manifest.longest_name_tokens],
        contract.BEAM_WIDTH: [forecaster.bundle.manifest.beam_width],
        contract.END_ID: [forecaster.renderer.end_id],
        contract.PAD_ID: [forecaster.renderer.end_id],
    }
    arrays = {name: np.array(values, dtype=np.int32) for name, values in tensors.items()}
    arrays[contract.RETURN_LOG_PROBS] = np.array([True])
    wanted = (contract.OUTPUT_IDS, contract.CUM_LOG_PROBS, contract.PROVED_TOP_K)
    requests = [Request(tensors=arrays, outputs=wanted) for _ in range(3)]
    assert model.execute(requests) is None
    model.finalize()  # waits for the answers
    found, *others = (request.sent().values() for request in requests)
    for other in others:
        np.testing.assert_array_equal(other[contract.OUTPUT_IDS], found[contract.OUTPUT_IDS])
    step = SearchStep(forecaster.bundle, threads=1)
    beams = step.run(prompt, top_k=forecaster.bundle.manifest.forecast_k).beams
    assert found[contract.PROVED_TOP_K].tolist() == [beams.proved_top_k]
    assert beams.proved_top_k == forecaster.bundle.manifest.forecast_k
    np.testing.assert_array_equal(found[contract.OUTPUT_IDS], beams.output_ids)
    np.testing.assert_allclose(found[contract.CUM_LOG_PROBS], beams.log_probs, atol=1e-4)


def test_a_bundle_keeps_its_engine_when_it_is_built_again(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    source = ["--bundle", str(built("fp32")), "--forecast-k", "7"]
    kept = ["--save-bundle", str(tmp_path / "kept"), "--output", str(tmp_path / "repository")]
    assert main(["build", *source, *kept]) == 0
    manifest = Bundle.open(tmp_path / "kept").manifest
    assert (manifest.engine, manifest.forecast_k) == ("torch", 7)


def test_a_bundle_keeps_its_products_when_it_is_built_again(
    built: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["build", "--bundle", str(built("bf16 bf16-parts")), "--forecast-k", "7"]
    kept = ["--save-bundle", str(tmp_path / "kept"), "--output", str(tmp_path / "repository")]
    assert main([*source, *kept]) == 0
    assert Bundle.open(tmp_path / "kept").manifest.products == "bf16-parts"
    assert main([*source, "--products", "bf16-parts", "--output", str(tmp_path / "other")]) == 2
    assert "--products goes with --checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine torch --precision int8", "--precision int8 is not one of --engine torch: fp32"),
        ("--engine onnx --precision bf16", "--precision bf16 is not one of --engine onnx: fp32"),
        ("--engine torch --dry-run", "--dry-run goes with --engine tensorrt-llm"),
        ("--device cuda", "--device cuda goes with --engine torch"),
        (
            "--products bf16-parts",
            "--products bf16-parts goes with --checkpoint and --engine torch",
        ),
        (
            "--engine tensorrt-llm --products bf16-parts",
            "--products bf16-parts goes with --checkpoint and --engine torch",
        ),
    ],
)
def test_options_of_another_engine_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    source = ["--checkpoint", str(place / "checkpoint"), "--output", str(tmp_path / "out")]
    assert main(["build", *source, *options.split()]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_device_that_the_check_cannot_use_leaves_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    source = ["--checkpoint", str(place / "checkpoint"), "--output", str(tmp_path / "out")]
    assert main(["build", *source, "--engine", "torch", "--device", "cuda"]) == 2
    assert "device cuda: torch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_torch_one_line_says_what_to_install(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("adprior_runtime.engines.torch_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    source = ["--checkpoint", str(place / "checkpoint"), "--output", str(tmp_path / "out")]
    assert main(["build", *source, "--engine", "torch"]) != 0
    assert "engine torch needs the package torch: pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
