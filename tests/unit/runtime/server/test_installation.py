from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.server import installation as installation_module
from adprior_runtime.server.installation import Installation, find_installation

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def no_server_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_server_on_path")
@pytest.mark.parametrize(
    ("name", "found", "remedy"),
    [
        ("version", lambda _: "2.1.3", r"NumPy 2\.1\.3 .* pip install 'numpy<2'"),
        ("_library_directories", lambda: iter([]), f"apt-get install libpython{PYTHON}"),
        ("find_spec", lambda _: None, r"pip install 'adprior\[embedded\]'"),
    ],
)
def test_a_missing_part_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, found: Callable[..., object], remedy: str
) -> None:
    monkeypatch.setattr(installation_module, name, found)
    with pytest.raises(EnvironmentProblemError, match=remedy):
        find_installation()


@pytest.mark.usefixtures("no_server_on_path")
@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("darwin", "arm64", ("", "")),
        ("linux", "aarch64", ("glibc", "2.36")),
        ("linux", "x86_64", ("glibc", "2.31")),
        ("linux", "x86_64", ("", "")),
    ],
)
def test_an_unsupported_platform_is_named(
    system: str, machine: str, libc: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(
        EnvironmentProblemError, match=rf"glibc 2\.35 .* this is {system} {machine}"
    ):
        find_installation()


def test_the_server_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    installation = find_installation()
    assert installation.binary == binary
    assert not installation.is_embedded


def test_this_environments_python_comes_first_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/elsewhere")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    environment = Installation(binary=Path("t"), libraries=(Path("/a"), Path("/b"))).environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/elsewhere"
    assert environment["LD_LIBRARY_PATH"] == "/a:/b"


def test_numpy_starts_no_threads_in_the_models_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert Installation(binary=Path("t")).environment()["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    assert Installation(binary=Path("t")).environment()["OPENBLAS_NUM_THREADS"] == "4"


def test_the_backend_directory_has_the_layout_that_the_server_expects(tmp_path: Path) -> None:
    files = (tmp_path / "libtriton_python.so", tmp_path / "triton_python_backend_stub")
    for file in files:
        file.touch()
    Installation(binary=Path("t"), backend_files=files).copy_backends(tmp_path / "backends")
    copies = (tmp_path / "backends" / "python").iterdir()
    assert {copy.name for copy in copies} == {file.name for file in files}


def test_further_backends_are_copied_beside_it(tmp_path: Path) -> None:
    backend = tmp_path / "tensorrtllm"
    (backend / "__pycache__").mkdir(parents=True)
    (backend / "model.py").write_text("pass")
    installation = Installation(binary=Path("t"), backend_files=())
    installation.copy_backends(tmp_path / "backends", [backend])
    copied = tmp_path / "backends" / "tensorrtllm"
    assert [path.name for path in copied.iterdir()] == ["model.py"]
    (backend / "model.py").unlink()
    with pytest.raises(InvalidInputError, match=r"tensorrtllm: not a backend written in Python"):
        installation.copy_backends(tmp_path / "others", [backend])
