from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from adprior_client.cli.context_use import ContextUse
from adprior_client.commands import predict, rank
from adprior_runtime import contract
from support.client_calls import run_command
from support.fake_triton import context_use_tensors
from support.server_names import Names, port_of, write_servers

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton


USER = '{"profile": {}, "history": [], "as_of": "2024-05-31"}'
COUNTS = {
    "events": 458,
    "after_as_of": 3,
    "over_budget": 420,
    "advertisers": 35,
    "known_advertisers": 0,
    "profile_keys": 6,
    "denied_keys": 1,
    "unknown_keys": 4,
}
WORDS = (
    "0 of 35 advertisers known, 4 of 5 profile keys unknown, 1 profile keys denied, "
    "420 of 458 events over the prompt's budget, "
    "3 of 458 events after as_of (a time without a zone is UTC)"
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {name: tmp_path / f"{name}.json" for name in ("user", "candidates")}
    paths["user"].write_text(USER, encoding="utf-8")
    paths["candidates"].write_text('[{"advertiser_id": 7, "base_logit": -2}]', encoding="utf-8")
    return {name: str(path) for name, path in paths.items()}


def _run(command: str, url: str, files: dict[str, str], *options: str) -> None:
    module: Any = {"predict": predict, "rank": rank}[command]
    given = ["--url", url, "--user", files["user"], *options]
    given += ["--candidates", files["candidates"]] if command == "rank" else []
    assert run_command(module, *given) == 0


def _answer_counts(triton: FakeTriton, **counts: int) -> None:
    usual = triton.answer

    def answer(model: str, asked: Any) -> Any:
        if model == contract.TOKENIZER:
            return context_use_tensors(**counts)
        return usual(model, asked)

    triton.answer = answer


@pytest.mark.parametrize("command", ["predict", "rank"])
def test_the_table_ends_with_the_use_of_the_context(
    triton: FakeTriton, files: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _answer_counts(triton, **COUNTS)
    _run(command, triton.url, files)
    assert capsys.readouterr().out.splitlines()[-1] == f"Context: {WORDS}"
    assert [model for model, _ in triton.calls][1:] == [contract.TOKENIZER]


@pytest.mark.parametrize("command", ["predict", "rank"])
def test_a_name_and_a_file_are_asked_like_an_address(
    triton: FakeTriton,
    files: dict[str, str],
    command: str,
    names: Names,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names.answers["pods.test"] = ["127.0.0.1"]
    _answer_counts(triton, **COUNTS)
    listed = write_servers(tmp_path / "servers", [triton.url])
    for url in (f"dns:///pods.test:{port_of(triton)}", listed):
        _run(command, url, files)
        assert capsys.readouterr().out.splitlines()[-1] == f"Context: {WORDS}"


@pytest.mark.parametrize("command", ["predict", "rank"])
def test_with_json_the_use_of_the_context_goes_to_standard_error(
    triton: FakeTriton, files: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _answer_counts(triton, **COUNTS)
    _run(command, triton.url, files, "--json")
    printed = capsys.readouterr()
    assert "context" not in json.loads(printed.out)
    assert printed.err == f"adprior {command}: context: {WORDS}\n"
    _answer_counts(triton, events=3, advertisers=2, known_advertisers=2)
    _run(command, triton.url, files, "--json")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"events": 5, "advertisers": 2, "known_advertisers": 2}, "2 of 2 advertisers known"),
        ({"events": 5, "advertisers": 2, "known_advertisers": -1}, "all of it is used"),
        ({"events": 5, "unknown_keys": -1}, "none of 5 events names an advertiser"),
        ({"profile_keys": 2, "unknown_keys": 1}, "no history, 1 of 2 profile keys unknown"),
        ({}, "no history"),
        (
            {"events": 4, "after_as_of": 4},
            "4 of 4 events after as_of (a time without a zone is UTC)",
        ),
    ],
)
def test_the_use_of_each_kind_of_context_is_described(counts: dict[str, int], words: str) -> None:
    values = context_use_tensors(**counts)[contract.CONTEXT_USE]
    assert ContextUse(values.ravel()).describe() == words


def test_a_server_without_counts_still_answers(
    triton: FakeTriton, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = triton.answer
    triton.answer = lambda model, asked: {} if model == contract.TOKENIZER else usual(model, asked)
    _run("predict", triton.url, files)
    assert "Context" not in capsys.readouterr().out


def test_counts_that_an_older_server_lacks_are_unknown() -> None:
    use = ContextUse(np.array([9], dtype=np.int32))
    assert use[contract.ContextCount.EVENTS] == 9
    assert use[contract.ContextCount.UNKNOWN_KEYS] == contract.UNCOUNTED
    assert use.describe() == "all of it is used"
