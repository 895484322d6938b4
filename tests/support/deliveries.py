"""Small bundles and repositories for `adprior push` and `pull`, and what a directory holds."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.bundle import MANIFEST, REPOSITORY_MARKER, Manifest
from adprior_runtime.cli import main

KB = 1000


def write_bundle(directory: Path, *, seed: int = 0, model_bytes: int = 200 * KB) -> Path:
    """Write a bundle whose files hold noise: a large one that ``seed`` changes, and small ones."""
    contents = {
        "model.onnx": noise(model_bytes, seed=0),
        "head.onnx": noise(3 * KB, seed=seed),
        "tokenizer.json": b"{}",
        "trie/child_tokens.npy": noise(5 * KB, seed=1),
        "empty.bin": b"",
    }
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = Manifest(bundle_id="", files=hashes, origin=f"noise {seed}").sealed()
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return directory


def write_repository(directory: Path, *, seed: int = 0, model_bytes: int = 200 * KB) -> Path:
    """Write what `adprior push` takes for a repository: a bundle in each of two models, and an
    ensemble's empty version directory."""
    for model in ("tokenizer", "llm_engine"):
        write_bundle(directory / model / "1" / "bundle", seed=seed, model_bytes=model_bytes)
        (directory / model / "config.pbtxt").write_text(f'name: "{model}"\n')
    (directory / "advertiser_retrieval" / "1").mkdir(parents=True)
    assert (directory / REPOSITORY_MARKER).is_file()
    return directory


def noise(count: int, *, seed: int) -> bytes:
    return random.Random(f"{seed} {count}").randbytes(count)


def contents(directory: Path) -> dict[str, str | None]:
    """Return the SHA-256 of every file by its path; None for a directory."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        )
        for path in sorted(directory.rglob("*"))
    }


class Adprior:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Any:
        """Return what the command prints with ``--json``."""
        status = main([*map(str, arguments), "--json"])
        printed = self._capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out)

    def text(self, *arguments: str | Path) -> str:
        """Return what the command prints for people."""
        assert main([*map(str, arguments)]) == 0
        return self._capsys.readouterr().out

    def error(self, *arguments: str | Path) -> str:
        """Return the one line that the command refuses with."""
        status = main([*map(str, arguments)])
        printed = self._capsys.readouterr()
        assert (status, printed.out) == (2, ""), printed
        (line,) = printed.err.splitlines()
        return line
