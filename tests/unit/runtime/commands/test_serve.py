from __future__ import annotations

import argparse
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adprior_runtime import contract
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Manifest
from adprior_runtime.commands import serve
from adprior_runtime.errors import (
    AdpriorError,
    ArtefactError,
    EnvironmentProblemError,
    InvalidInputError,
)
from adprior_runtime.server.installation import Installation
from support.paths import ROOT


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    committed = ROOT / "model_repository"
    shutil.copytree(committed, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in contract.MODEL_NAMES:
        (tmp_path / "repo" / name / "1").mkdir(exist_ok=True)
    for name in MODEL_FILES:
        place = tmp_path / "repo" / name / "1" / "bundle"
        place.mkdir()
        (place / MANIFEST).write_text(Manifest(bundle_id="").sealed().to_json())
    return tmp_path / "repo"


def _serve(*options: str) -> int:
    parser = argparse.ArgumentParser(prog="adprior serve")
    serve.add_arguments(parser)
    return serve.run(parser.parse_args(options))


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port", "--metrics-port"])
def test_a_port_in_use_names_the_flag_to_change(
    flag: str, taken_port: int, repository: Path
) -> None:
    expected = f"port {taken_port} on 127.0.0.1 is in use; choose another with {flag}"
    ports = {"--grpc-port": "28001", "--http-port": "28000", "--metrics-port": "28002"}
    ports[flag] = str(taken_port)
    options = [text for option in ports.items() for text in option]
    with pytest.raises(InvalidInputError, match=expected):
        _serve("--repository", str(repository), *options)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--ready-timeout", text) for text in ("0", "-1", "nan", "inf")]
    + [("--drain-seconds", text) for text in ("-1", "nan", "inf")],
)
def test_an_impossible_waiting_time_is_refused(
    repository: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _serve("--repository", str(repository), option, value)
    assert f"argument {option}: found '{value}', expected a number" in capsys.readouterr().err


def test_a_missing_repository_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such directory; make it with `adprior build`"):
        _serve("--repository", str(tmp_path / "gone"))


def test_the_first_finding_of_the_quick_check_is_one_clear_line(repository: Path) -> None:
    (repository / "__pycache__").mkdir()
    message = rf"^{repository}/__pycache__: found a directory without config.pbtxt, .*; remove it$"
    with pytest.raises(InvalidInputError, match=message):
        _serve("--repository", str(repository))
    (repository / "tokenizer" / "1" / "model.py").unlink()
    with pytest.raises(
        InvalidInputError, match=r"\(1 of 2 findings; adprior build --check .*repo\)$"
    ):
        _serve("--repository", str(repository))


def test_the_configuration_of_the_device_is_checked(repository: Path) -> None:
    (repository / contract.LLM_ENGINE / "configs" / "cuda.pbtxt").unlink()
    with pytest.raises(InvalidInputError, match=r"llm_engine/configs/cuda\.pbtxt: found no such"):
        _serve("--repository", str(repository), "--device", "cuda")


def _change_config(repository: Path) -> None:
    path = repository / contract.ADVERTISER_DECODER / "config.pbtxt"
    path.write_text(path.read_text().replace("MISSING_MASS", "MASS"))


def _damage_manifest(repository: Path) -> None:
    (repository / contract.TOKENIZER / "1" / "bundle" / MANIFEST).write_text("{")


def _use_another_bundle(repository: Path) -> None:
    manifest = Manifest(bundle_id="", beam_width=7).sealed().to_json()
    (repository / contract.TOKENIZER / "1" / "bundle" / MANIFEST).write_text(manifest)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_change_config, ArtefactError),
        (_damage_manifest, ArtefactError),
        (_use_another_bundle, InvalidInputError),
        (lambda repository: shutil.rmtree(repository / contract.TOKENIZER), InvalidInputError),
        (
            lambda repository: (repository / contract.TOKENIZER / "config.pbtxt").unlink(),
            InvalidInputError,
        ),
        (
            lambda repository: (
                repository / contract.TOKENIZER / "1" / "bundle" / MANIFEST
            ).unlink(),
            InvalidInputError,
        ),
    ],
)
def test_a_fault_names_its_remedy_and_only_a_lasting_one_ends_the_restarts(
    repository: Path, change: Callable[[Path], object], kind: type[AdpriorError]
) -> None:
    change(repository)
    with pytest.raises(AdpriorError, match="; build the repository again with this adprior") as e:
        _serve("--repository", str(repository))
    assert type(e.value) is kind


def test_an_engine_that_does_not_fit_is_built_again(repository: Path) -> None:
    version = repository / contract.LLM_ENGINE / "1"
    (version / "rank0.engine").write_bytes(b"engine")
    (version / "config.json").write_text('{"build_config": {}}')
    remedy = "; the engine does not fit; build it again for this catalogue and deployment"
    with pytest.raises(ArtefactError, match=f"config.json: found .*{remedy}"):
        _serve("--repository", str(repository))


def test_a_missing_engine_names_no_option_of_another_command(repository: Path) -> None:
    manifest = Manifest(bundle_id="", engine="tensorrt-llm").sealed().to_json()
    for name in MODEL_FILES:
        (repository / name / "1" / "bundle" / MANIFEST).write_text(manifest)
    with pytest.raises(InvalidInputError, match="no engine, expected the engine: run the") as error:
        _serve("--repository", str(repository))
    assert "--allow-missing-engine" not in str(error.value)


def test_a_compiled_engine_needs_the_container(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / contract.LLM_ENGINE / "1" / "rank0.engine").touch()
    installation = Installation(binary=Path("tritonserver"), backend_files=(Path("stub"),))
    monkeypatch.setattr(serve, "check_repository", lambda *_, **__: [])
    monkeypatch.setattr(serve, "find_installation", lambda: installation)
    for device in ([], ["--device", "cuda"]):
        with pytest.raises(EnvironmentProblemError, match="holds a TensorRT-LLM engine"):
            _serve("--repository", str(repository), *device)
    with pytest.raises(InvalidInputError, match=r"^--device cpu: .* runs on a GPU only$"):
        _serve("--repository", str(repository), "--device", "cpu")


def test_plain_text_beyond_loopback_is_one_clear_line(repository: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"--host 0\.0\.0\.0: .*--tls-cert and --tls-key"):
        _serve("--repository", str(repository), "--host", "0.0.0.0")


def test_half_of_tls_is_refused(repository: Path) -> None:
    with pytest.raises(InvalidInputError, match="--tls-cert and --tls-key together"):
        _serve("--repository", str(repository), "--tls-cert", "cert.pem")
