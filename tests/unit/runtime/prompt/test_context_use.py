"""How much of a context is used: counted by the tokenizer's model, printed by commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from adprior_build.training.scratch_tokenizer import END, scratch_template, scratch_tokenizer
from adprior_client.cli.context_use import ContextUse as ToldUse
from adprior_client.commands import predict, rank
from adprior_runtime import contract
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.context_use import ContextMeter, ContextUse
from adprior_runtime.prompt.renderer import PromptRenderer
from support.fake_triton import context_use_tensors

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton

pytest_plugins = ("support.fake_triton",)

NAMES = ["Acme", "Birch & Co", "Zéphyr"]
TOKENIZER = scratch_tokenizer(NAMES * 3, 300, NAMES)
TEMPLATE = replace(scratch_template(60), terminator=END, denied_profile_keys=("gender",))
RENDERER = PromptRenderer(TEMPLATE, TOKENIZER)
TRIE = Trie.build([RENDERER.name_ids(name) for name in NAMES], range(len(NAMES)))
KEYS = ("age", "home state")


def _measure(
    document: Mapping[str, Any], trie: Trie | None = TRIE, keys: tuple[str, ...] | None = KEYS
) -> ContextUse:
    context = parse_context(json.dumps({"as_of": "2024-05-31"} | dict(document)).encode())
    return ContextMeter(RENDERER, trie, keys).measure(context, RENDERER.render(context))


def _events(*advertisers: str, key: str = "advertiser") -> list[dict[str, str]]:
    return [{"time": "2024-05-01", "action": "visit", key: name} for name in advertisers]


def test_advertisers_are_counted_once_each_and_known_by_their_tokens() -> None:
    history = _events("Acme", "ACME", "Acme", "Ze\u0301phyr", "\u200bAcme", "Elsewhere", "\u200b")
    use = _measure({"history": history})
    assert (use.events, use.advertisers, use.known_advertisers) == (7, 4, 2)


def test_a_template_without_a_terminator_after_names_knows_them_too() -> None:
    renderer = PromptRenderer(replace(TEMPLATE, event=("{advertiser};",)), TOKENIZER)
    raw = json.dumps({"as_of": "2024-05-31", "history": _events("Acme", "Elsewhere")}).encode()
    context = parse_context(raw)
    use = ContextMeter(renderer, TRIE, KEYS).measure(context, renderer.render(context))
    assert (use.advertisers, use.known_advertisers) == (2, 1)


def test_a_history_under_another_key_names_no_advertiser() -> None:
    use = _measure({"history": _events("Acme", "Zéphyr", key="brand")})
    assert (use.events, use.advertisers, use.known_advertisers) == (2, 0, 0)


def test_profile_keys_are_those_of_the_training_in_the_prompts_spelling() -> None:
    profile = {"age": 4, "home  state": "x", "Age": 5, "sex": "f", "Gender ": "f", "gone": None}
    use = _measure({"profile": profile})
    assert (use.profile_keys, use.denied_keys, use.unknown_keys) == (5, 1, 2)


def test_events_beyond_the_budget_and_after_as_of_are_counted() -> None:
    late = [{"time": "2024-06-01", "action": "visit", "advertiser": "Acme"}] * 3
    use = _measure({"history": [*_events(*["Acme"] * 50), *late]})
    assert (use.events, use.after_as_of) == (53, 3)
    assert use.over_budget == 22  # two tokens an event, and 57 of the prompt's 60 for them
    assert use.advertisers == use.known_advertisers == 1


def test_unknown_counts_are_marked_as_such() -> None:
    use = _measure({"profile": {"x": 1}, "history": _events("Acme")}, trie=None, keys=None)
    assert (use.known_advertisers, use.unknown_keys) == (None, None)
    assert use.counts()[contract.ContextCount.KNOWN_ADVERTISERS] == contract.UNCOUNTED
    assert use.counts()[contract.ContextCount.UNKNOWN_KEYS] == contract.UNCOUNTED


def test_the_counts_are_in_the_contracts_order() -> None:
    use = ContextUse(
        events=8,
        after_as_of=1,
        over_budget=2,
        advertisers=3,
        known_advertisers=0,
        profile_keys=7,
        denied_keys=5,
        unknown_keys=6,
    )
    assert dict(zip(contract.ContextCount.__members__, use.counts(), strict=True)) == {
        name.upper(): getattr(use, name.lower()) for name in contract.ContextCount.__members__
    }


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
    parser = argparse.ArgumentParser(prog=f"adprior {command}")
    module.add_arguments(parser)
    given = ["--url", url, "--user", files["user"], *options]
    given += ["--candidates", files["candidates"]] if command == "rank" else []
    assert module.run(parser.parse_args(given)) == 0


def _tell(triton: FakeTriton, **counts: int) -> None:
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
    _tell(triton, **COUNTS)
    _run(command, triton.url, files)
    assert capsys.readouterr().out.splitlines()[-1] == f"Context: {WORDS}"
    assert [model for model, _ in triton.calls][1:] == [contract.TOKENIZER]


@pytest.mark.parametrize("command", ["predict", "rank"])
def test_with_json_the_use_of_the_context_goes_to_standard_error(
    triton: FakeTriton, files: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(triton, **COUNTS)
    _run(command, triton.url, files, "--json")
    printed = capsys.readouterr()
    assert "context" not in json.loads(printed.out)
    assert printed.err == f"adprior {command}: context: {WORDS}\n"
    _tell(triton, events=3, advertisers=2, known_advertisers=2)
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
def test_the_use_of_each_kind_of_context_is_described(
    triton: FakeTriton,
    files: dict[str, str],
    counts: dict[str, int],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _tell(triton, **counts)
    _run("predict", triton.url, files)
    assert capsys.readouterr().out.splitlines()[-1] == f"Context: {words}"


def test_a_server_without_counts_still_answers(
    triton: FakeTriton, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = triton.answer
    triton.answer = lambda model, asked: {} if model == contract.TOKENIZER else usual(model, asked)
    _run("predict", triton.url, files)
    assert "Context" not in capsys.readouterr().out


def test_counts_that_an_older_server_lacks_are_unknown() -> None:
    use = ToldUse(np.array([9], dtype=np.int32))
    assert use[contract.ContextCount.EVENTS] == 9
    assert use[contract.ContextCount.UNKNOWN_KEYS] == contract.UNCOUNTED
    assert use.describe() == "all of it is used"
