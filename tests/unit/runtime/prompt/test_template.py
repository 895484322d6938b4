from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.template import PromptTemplate, coarse_number
from support.prompts import PROSE, TEMPLATES


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"event": ("{advertizer}",)},
            r"event piece '\{advertizer\}' has the field \{advertizer\}",
        ),
        ({"head": ("{day}",)}, "head piece .* known there: end"),
        ({"tail": ("{advertiser}",)}, "tail piece"),
        ({"interest_tail": ("{day}",)}, "interest_tail piece"),
        ({"profile": ("{value.__class__}",)}, "profile piece"),
        ({"profile": ("{value!r}",)}, "profile piece"),
        ({"event": ("{text:>9}",)}, "event piece"),
        ({"event": ("{}",)}, "event piece"),
        ({"event": ("{times}", "{advertiser}{end}")}, "{times} comes before its {advertiser}"),
        ({"earlier": ("{gap}",), "max_earlier_tokens": 9}, "earlier piece"),
        ({"earlier": ("{advertiser}",)}, "max_earlier_tokens is 0, expected a part of"),
        ({"max_earlier_tokens": 9}, "max_earlier_tokens is 9, expected a part of .* else 0"),
        (
            {"earlier": ("{advertiser}",), "max_earlier_tokens": 400},
            "max_earlier_tokens is 400, expected a part of max_prompt_tokens 400",
        ),
        ({"max_prompt_tokens": 0}, "budgets must be at least 1"),
        ({"max_field_chars": -1}, "budgets must be at least 1"),
        ({"terminator": None}, "terminator is None, expected text"),
    ],
)
def test_an_impossible_template_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        replace(PROSE, **changed)


@pytest.mark.parametrize("template", [*TEMPLATES, replace(PROSE, denied_profile_keys=("Größe",))])
def test_a_template_survives_its_file(template: PromptTemplate, tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text(template.to_json(), encoding="utf-8")
    assert PromptTemplate.load(path) == template


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'["terminator"]',
        b"null",
        b"{}",
        b'{"terminator": "x"}',
        asdict(PROSE) | {"ending": "x"},
        asdict(PROSE) | {"max_prompt_tokens": "320"},
        asdict(PROSE) | {"max_prompt_tokens": None},
        asdict(PROSE) | {"head": [1]},
        asdict(PROSE) | {"head": None},
        asdict(PROSE) | {"event": ["{"]},
        asdict(PROSE) | {"event": ["{action"]},
        asdict(PROSE) | {"event": ["{day} {nothing}"]},
        asdict(PROSE) | {"event": "{day}"},
        asdict(PROSE) | {"head": "A user"},
        asdict(PROSE) | {"denied_profile_keys": "religion"},
        asdict(PROSE) | {"denied_profile_keys": None},
        asdict(PROSE) | {"denied_profile_keys": [["religion"]]},
    ],
)
def test_a_corrupt_template_is_refused_by_name(
    document: bytes | dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "prompt.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    with pytest.raises(ArtefactError) as caught:
        PromptTemplate.load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "prompt" in str(caught.value)


def test_a_model_must_hold_the_longest_prompt_and_name() -> None:
    PROSE.require_positions(410, 10)
    with pytest.raises(ArtefactError, match="need 410 positions, the model has 409"):
        PROSE.require_positions(409, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not a prompt template"), ('{"terminator": "<end>"}', "max_prompt_tokens missing$")],
)
def test_a_missing_template_or_key_is_named(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "prompt.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtefactError, match=rf"prompt\.json: {message}"):
        PromptTemplate.load(path)


@pytest.mark.parametrize(
    ("days", "text"),
    [(0, "0"), (9, "9"), (10, "10"), (14, "10"), (15, "15"), (22, "15"), (23, "22"), (999, "864")],
)
def test_many_days_are_rounded_down(days: int, text: str) -> None:
    assert coarse_number(days) == text


@given(st.integers(0, 40_000))
def test_rounded_days_never_exceed_the_days(days: int) -> None:
    coarse = int(coarse_number(days))
    assert days / 1.5 - 1 < coarse <= days
    assert coarse_number(coarse) == str(coarse) or coarse_number(coarse + 1) == str(coarse)
