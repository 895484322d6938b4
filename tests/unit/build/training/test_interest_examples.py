from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.catalogue.catalogue_file import Catalogue, read_catalogue
from adprior_build.data.event_log import UserHistory
from adprior_build.training.interest_examples import InterestExamples, require_interest_tail
from adprior_build.training.windows import INTEREST, NEW, Window, WindowSource
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate, in_words
from support.interests import write_interests
from support.tokens import END, USER
from unit.build.training.test_windows import (
    EVENTS,
    KNOWN,
    TOKENIZER,
    TRIE,
    event,
    text,
    user,
    with_smaller_budgets,
)
from unit.build.training.test_windows import TEMPLATE as PLAIN

TEMPLATE = replace(PLAIN, interest_tail=("kind: ",))
RENDERER = PromptRenderer(TEMPLATE, TOKENIZER)
RENDERERS = with_smaller_budgets(TEMPLATE)
INTERESTS = ["tea", "dog food", "lamps"]
FOLLOWED = [event(day, KNOWN[day % 3], "DOG_FOOD" if day % 2 else "tea") for day in range(40)]


@pytest.fixture(scope="module")
def interests(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("interests") / "interests.csv"
    return read_catalogue(write_interests(path, INTERESTS), "interest")


def windows_of(
    history: UserHistory,
    interests: Catalogue | None,
    template: PromptTemplate = TEMPLATE,
    epoch: int = 0,
) -> list[Window]:
    renderer = PromptRenderer(template, TOKENIZER)
    examples = None if interests is None else InterestExamples(interests, renderer)
    return WindowSource([history], renderer, TRIE, 0, examples).epoch(epoch)


def before_interest(window: Window) -> tuple[int, ...]:
    """Return the tokens that the interest of a window follows."""
    count = int((window.kinds == INTEREST).sum())
    return tuple(window.token_ids[: len(window.token_ids) - count].tolist())


def interest_of(window: Window) -> str:
    spelt = TOKENIZER.decode(
        window.token_ids[window.targets[window.kinds == INTEREST]].tolist(),
        skip_special_tokens=False,
    )
    return str(spelt).removesuffix(END)


def served(history: Sequence[Event], profile: dict[str, str]) -> dict[tuple[int, ...], list[str]]:
    """Return the interests of the events that follow each sequence that a server would search."""
    found: dict[tuple[int, ...], list[str]] = {}
    for row, target in enumerate(history):
        day = datetime.combine(target.time.date(), time(), tzinfo=UTC)
        context = UserContext(profile=profile, history=history[:row], as_of=target.time)
        of_day = [e for e in history if e.time.date() == day.date() and e.category]
        for renderer in RENDERERS:
            try:
                prompt = renderer.render(context).token_ids
            except InvalidRequestError:  # the profile alone is longer
                continue
            key = (*prompt, *renderer.interest_tail_ids)
            found.setdefault(key, []).extend(in_words(e.category or "") for e in of_day)
    return found


@given(events=st.lists(EVENTS, min_size=1, max_size=60), number=st.integers(0, 3))
def test_an_interest_follows_what_a_server_would_search(
    interests: Catalogue, events: list[Event], number: int
) -> None:
    by_day = {item.time.date(): item for item in events}  # one a day, so nothing is shuffled
    history = user(*(by_day[day] for day in sorted(by_day)))
    expected = served(history.events, dict(history.profile))
    for window in windows_of(history, interests, epoch=number):
        if window.interests:
            assert interest_of(window) in expected[before_interest(window)]


def test_a_window_ends_with_the_interest_of_the_event_after_it(interests: Catalogue) -> None:
    windows = windows_of(user(*FOLLOWED), interests)
    assert len(windows) > 10
    assert [window.interests for window in windows].count(0) == 1  # nothing follows the last one
    for window in windows:
        prompt = before_interest(window)
        if window.interests:
            assert text(window).endswith(f"|+1|kind: {interest_of(window)}{END}")
            assert len(prompt) - len(RENDERER.interest_tail_ids) <= TEMPLATE.max_prompt_tokens
            assert window.targets[-1] == len(window.token_ids) - 1  # nothing comes after it
            assert interest_of(window) in INTERESTS


def test_a_short_history_gives_a_window_with_an_interest_alone(interests: Catalogue) -> None:
    history = user(*FOLLOWED[:3])
    start = f"{USER}44;"
    events = [f"Acme{END}in tea|", f"Acme Pets{END}in DOG_FOOD|"]
    expected = {
        f"{start}kind: tea{END}",  # as for a user without a history
        f"{start}{events[0]}+1|kind: dog food{END}",
        f"{start}{events[0]}+1|{events[1]}+1|kind: tea{END}",
    }
    found = set()
    for epoch in range(30):
        windows = windows_of(history, interests, epoch=epoch)
        (alone,) = (window for window in windows if window.interests)
        (other,) = (window for window in windows if not window.interests)
        assert (other.names, alone.names, alone.new_names) == (3, 0, 0)
        assert set(alone.kinds.tolist()) == {INTEREST}
        found.add(text(alone))
    assert found == expected


def test_every_name_stays_a_target_once(interests: Catalogue) -> None:
    with_interests = windows_of(user(*FOLLOWED), interests)
    assert sum(window.names for window in with_interests) == len(FOLLOWED)
    assert sum(window.new_names for window in with_interests) == len(KNOWN)
    for window in with_interests:
        ends = window.token_ids[window.targets] == RENDERER.end_id
        assert ends.sum() == window.names + window.interests
        assert (window.kinds[ends] == NEW).sum() == window.new_names


def test_an_event_that_no_prompt_shows_and_has_no_interest_is_skipped(
    interests: Catalogue,
) -> None:
    renderer = PromptRenderer(replace(TEMPLATE, event_needs=("advertiser",)), TOKENIZER)
    hidden = [event(41, None, None), event(42, None, "unknown")]
    events = [event(40, "Acme Pets", "tea"), *hidden, event(44, "Acme", "LAMPS"), event(45, "Acme")]
    examples = InterestExamples(interests, renderer).between(
        events, renderer.event_sections(events)
    )
    assert [example is not None for example in examples] == [True, True, True, True, False, False]
    assert examples[1] is examples[2] is examples[3]
    assert examples[3] is not None
    assert TOKENIZER.decode(list(examples[3].tail_ids)) == "+4|"
    assert list(examples[3].name_ids) == renderer.name_ids("lamps")


@pytest.mark.parametrize("category", [None, "shoes", ""])
def test_a_window_before_an_event_without_an_interest_has_none(
    interests: Catalogue, category: str | None
) -> None:
    history = user(*(replace(each, category=category) for each in FOLLOWED))
    mine, plain = windows_of(history, interests), windows_of(history, None)
    assert [text(window) for window in mine] == [text(window) for window in plain]
    assert not any(window.interests for window in mine)


def test_the_depth_counts_the_tail_and_the_longest_interest(interests: Catalogue) -> None:
    longest = max(len(RENDERER.name_ids(name)) for name in INTERESTS)
    tail = len(RENDERER.interest_tail_ids)
    assert InterestExamples(interests, RENDERER).depth == tail + longest


def test_a_template_without_a_tail_for_interests_is_refused() -> None:
    require_interest_tail(TEMPLATE, Path("interests.csv"))
    without = [replace(TEMPLATE, interest_tail=tail) for tail in ((), ("",))]
    for template in (*without, None):
        with pytest.raises(InvalidInputError, match=r"^interests.csv: the prompt template has no"):
            require_interest_tail(template, Path("interests.csv"))
