"""Prompts of two templates, and strategies for what they are made from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer

from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from support.tokens import END, USER, compact_template, piece_tokenizer

NAMES = ("Acme", "Acme Pets", "Birch & Co", "Dune  Coffee", "Zéphyr", "麦穗", "365")
TOKENIZER_JSON = piece_tokenizer(NAMES * 3, 300).to_str()
PROSE = PromptTemplate(
    terminator=END,
    max_prompt_tokens=400,
    head=("A user. ",),
    profile=("{key}: {value}; ",),
    event=("{day}", " {action}", " {advertiser}{end}", " in {category}", " for {text}", "\n"),
    tail=("{day}:", " after {days_since_previous}, "),
)
COMPACT = compact_template(60)
TEMPLATES = [PROSE, COMPACT]
AS_OF = datetime(2024, 5, 31, 12, tzinfo=UTC)
FREE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.sampled_from([*NAMES, END, USER, f"{END}Acme{END}", ""]) | FREE_TEXT
EVENTS = st.builds(
    Event,
    time=st.datetimes(datetime(2024, 1, 1), datetime(2024, 5, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    action=TEXTS,
    advertiser=st.none() | TEXTS,
    category=st.none() | TEXTS,
    text=st.none() | TEXTS,
)
HISTORIES = st.lists(EVENTS, max_size=12).map(
    lambda events: tuple(sorted(events, key=lambda event: event.time))
)


def load_tokenizer() -> Tokenizer:
    return Tokenizer.from_str(TOKENIZER_JSON)


def make_renderer(template: PromptTemplate = PROSE, **changed: Any) -> PromptRenderer:
    return PromptRenderer(replace(template, **changed), load_tokenizer())


def make_context(*events: Event, **profile: str) -> UserContext:
    return UserContext(profile=profile, history=events, as_of=AS_OF)


def make_event(days_ago: int = 1, **changed: Any) -> Event:
    values: dict[str, Any] = {"time": AS_OF - timedelta(days=days_ago), "action": "visit"}
    return Event(**(values | changed))
