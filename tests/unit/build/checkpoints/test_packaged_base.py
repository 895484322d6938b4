"""Packaged base models: assembled once, checked, and missed with one line."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from adprior_build.checkpoints import packaged_base as module
from adprior_build.checkpoints.packaged_base import package_of, packaged_base
from adprior_runtime.errors import InvalidInputError

MODEL = b"GGUF and the rest"


class Package(ModuleType):
    """A package as the real one is, with an invented model."""

    MODEL_NAME = "small.gguf"

    def __init__(self) -> None:
        super().__init__("small_gguf")
        self.assembled = 0

    def assemble(self, path: Path, overwrite: bool = False) -> None:
        assert overwrite
        self.assembled += 1
        path.write_bytes(MODEL)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Package:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = {"small_gguf": hashlib.sha256(MODEL).hexdigest(), "absent_gguf": ""}
    monkeypatch.setattr(module, "PACKAGES", known)
    package = Package()
    monkeypatch.setitem(sys.modules, "small_gguf", package)
    return package


def test_a_model_is_assembled_once_and_checked_each_time(package: Package, tmp_path: Path) -> None:
    assert package_of("small-gguf") == "small_gguf"
    assert package_of("json") is None
    path = packaged_base("small_gguf")
    assert path == packaged_base("small_gguf") == tmp_path / "adprior" / "small.gguf"
    assert path.read_bytes() == MODEL
    assert package.assembled == 1
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(MODEL[1:])
    with pytest.raises(InvalidInputError, match=r"small\.gguf: SHA-256 \w+, expected \w+ of the"):
        packaged_base("small_gguf")


@pytest.mark.usefixtures("package")
def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(InvalidInputError, match=r"absent_gguf .*pip install 'adprior\[gemma\]'"):
        packaged_base("absent_gguf")
