from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.template import PromptTemplate
from support.prompts import (
    AS_OF,
    HISTORIES,
    PROSE,
    TEMPLATES,
    make_context,
    make_renderer,
)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=100)
@given(history=HISTORIES, budget=st.integers(50, 250))
def test_a_prompt_within_budget_is_the_whole_one_less_the_oldest_events(
    template: PromptTemplate, history: tuple[Event, ...], budget: int
) -> None:
    context = UserContext(profile={"age": "9"}, history=history, as_of=AS_OF)
    whole = make_renderer(template, max_prompt_tokens=100_000).render(context)
    start = make_renderer(template, event=(), tail=(), max_prompt_tokens=100_000).render(context)
    prompt = make_renderer(template, max_prompt_tokens=budget).render(context)
    assert len(prompt.token_ids) <= budget
    assert whole.dropped_events == 0
    assert (prompt.dropped_events == 0) == (len(whole.token_ids) <= budget)
    cut = len(whole.token_ids) - len(prompt.token_ids) + len(start.token_ids)
    assert prompt.token_ids == start.token_ids + whole.token_ids[cut:]


@settings(max_examples=100)
@given(history=HISTORIES, budget=st.integers(15, 200))
def test_no_more_events_are_dropped_than_the_budget_asks(
    history: tuple[Event, ...], budget: int
) -> None:
    timeless = replace(PROSE, event=PROSE.event[1:], tail=(), max_prompt_tokens=100_000)
    head = len(make_renderer(timeless).render(make_context()).token_ids)
    sizes = [len(make_renderer(timeless).render(make_context(e)).token_ids) - head for e in history]
    expected = next(n for n in range(len(sizes) + 1) if head + sum(sizes[n:]) <= budget)
    prompt = make_renderer(timeless, max_prompt_tokens=budget).render(make_context(*history))
    assert prompt.dropped_events == expected
    assert len(prompt.token_ids) == head + sum(sizes[expected:])


def test_a_profile_beyond_the_budget_is_refused_by_name_and_not_quoted() -> None:
    renderer = make_renderer(max_prompt_tokens=40)
    with pytest.raises(InvalidRequestError, match=r"profile: .* leave no room") as caught:
        renderer.render(make_context(note="SECRET-9f3 " * 5))
    assert "SECRET" not in str(caught.value)


def test_a_denied_key_does_not_count_against_the_budget() -> None:
    renderer = make_renderer(denied_profile_keys=("note",), max_prompt_tokens=40)
    assert renderer.render(make_context(note="x" * 60)) == renderer.render(make_context())
