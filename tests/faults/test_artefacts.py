"""`adprior serve` refuses, in one line, to start a repository with a damaged file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES, TOKENIZER
from adprior_runtime.server.endpoints import free_ports
from faults.conftest import Report
from support.processes import COMMAND

pytestmark = pytest.mark.triton


def _flip(content: bytes) -> bytes:
    """Flip a bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "corrupt": _flip,
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "missing": lambda _: None,
    "swapped": lambda content: content[::-1],  # the bytes of some other file
}
SHORT = [
    (f"{LLM_ENGINE}/1/bundle/model.onnx", "corrupt"),
    (f"{TOKENIZER}/1/bundle/manifest.json", "truncated"),
    (f"{LLM_ENGINE}/configs/cpu.pbtxt", "truncated"),
]


@pytest.fixture
def copy(tiny_repository: Path, tmp_path: Path) -> Path:
    """A repository of hard links: tests replace its files and never write to them."""
    shutil.copytree(
        tiny_repository,
        tmp_path / "repository",
        copy_function=os.link,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "repository"


def _serve(repository: Path) -> tuple[int | str, str]:
    """Run `adprior serve`; return its exit status, or "ready", and its error output."""
    ports = zip(("grpc", "http", "metrics"), free_ports(3), strict=True)
    options = [f"--{name}-port={port}" for name, port in ports]
    with subprocess.Popen(
        [*COMMAND, "serve", "--repository", str(repository), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline():
            process.terminate()
            process.communicate(timeout=60)
            return "ready", ""
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


def _replace(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def _assert_refused(repository: Path, path: Path, changed: str) -> None:
    status, errors = _serve(repository)
    assert status == 2, f"{changed}: {status} {errors}"
    assert errors.startswith("adprior serve: "), errors
    assert errors.count("\n") == 1, errors
    relative = path.relative_to(repository)
    names = {relative.parts[0], path.name, str(relative)}
    assert any(name in errors for name in names), f"{changed}: {errors}"


@pytest.mark.parametrize(("name", "way"), SHORT)
def test_a_damaged_repository_is_refused(copy: Path, name: str, way: str) -> None:
    path = copy / name
    _replace(path, WAYS[way](path.read_bytes()))
    _assert_refused(copy, path, f"{name} {way}")


@pytest.mark.long_form
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", MODEL_NAMES)
def test_damage_in_any_file_is_refused(copy: Path, model: str, report: Report) -> None:
    tried, accepted = 0, []
    for path in sorted(path for path in (copy / model).rglob("*") if path.is_file()):
        content = path.read_bytes()
        for way, change in WAYS.items():
            _replace(path, change(content))
            try:
                _assert_refused(copy, path, f"{path.relative_to(copy)} {way}")
            except AssertionError as error:
                accepted.append(str(error).partition("\n")[0])
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            tried += 1
    found = report.sections.setdefault("artefacts", {"damaged": 0, "not_refused": []})
    found["damaged"] += tried
    found["not_refused"] += accepted
    assert accepted == []


@pytest.mark.long_form
def test_two_intact_files_that_change_places_are_refused(copy: Path) -> None:
    pairs = [
        ("llm_engine/1/bundle/trie/offsets.npy", "llm_engine/1/bundle/trie/child_tokens.npy"),
        ("llm_engine/1/bundle/model.onnx", "prior_head/1/bundle/head.onnx"),
        ("tokenizer/1/model.py", "prior_head/1/model.py"),
        ("tokenizer/config.pbtxt", "prior_head/config.pbtxt"),
        ("tokenizer/1/bundle/tokenizer.json", "tokenizer/1/bundle/prompt.json"),
    ]
    for one, other in pairs:
        contents = (copy / one).read_bytes(), (copy / other).read_bytes()
        _replace(copy / one, contents[1])
        _replace(copy / other, contents[0])
        status, errors = _serve(copy)
        assert (status, errors.count("\n")) == (2, 1), f"{one}, {other}: {status} {errors}"
        _replace(copy / one, contents[0])
        _replace(copy / other, contents[1])
