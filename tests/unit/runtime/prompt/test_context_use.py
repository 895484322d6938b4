from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adprior_runtime import contract
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.context_use import ContextMeter, ContextUse
from adprior_runtime.prompt.renderer import PromptRenderer
from support.tokens import END, compact_template, piece_tokenizer

NAMES = ["Acme", "Birch & Co", "Zéphyr"]
TOKENIZER = piece_tokenizer(NAMES * 3, 300, NAMES)
TEMPLATE = replace(compact_template(60), terminator=END, denied_profile_keys=("gender",))
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
