from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from adprior_build.data.event_log import UserHistory
from adprior_build.training.examples import Example, ExampleSource
from adprior_build.training.scratch_tokenizer import END, USER, scratch_tokenizer
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import Event
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate

KNOWN = ["Acme", "Acme Pets", "麦穗"]
UNKNOWN = ["Acme Pet", "Elsewhere"]
TEMPLATE = PromptTemplate(
    terminator=END,
    max_prompt_tokens=2000,
    head=(USER,),
    profile=("{key}={value}\n",),
    event=("on {day} {action} ", "at {advertiser}{end}", "\n"),
    tail=("then {day} ",),
)
TOKENIZER = scratch_tokenizer(KNOWN * 9, 300)
RENDERER = PromptRenderer(TEMPLATE, TOKENIZER)
TRIE = Trie.build([RENDERER.name_ids(name) for name in KNOWN], list(range(len(KNOWN))))

HALF_DAY = timedelta(hours=12)
EVENTS = st.builds(
    Event,
    time=st.integers(0, 12).map(lambda half: datetime(2024, 5, 1, 1, tzinfo=UTC) + half * HALF_DAY),
    action=st.just("visit"),
    advertiser=st.none() | st.sampled_from(KNOWN + UNKNOWN),
)


def event(day: int, advertiser: str | None, hour: int = 0) -> Event:
    return Event(
        time=datetime(2024, 5, day, hour, tzinfo=UTC), action="visit", advertiser=advertiser
    )


def user(*events: Event, user_id: str = "a") -> UserHistory:
    return UserHistory(user_id=user_id, profile={"age": "44"}, events=events)


def source(
    *users: UserHistory, seed: int = 0, renderer: PromptRenderer = RENDERER
) -> ExampleSource:
    return ExampleSource(users, renderer, TRIE, seed)


def text(token_ids: list[int]) -> str:
    return str(TOKENIZER.decode(token_ids, skip_special_tokens=False))


def taught(example: Example) -> list[str]:
    """Return the targets of the loss, split into names."""
    pieces: list[list[int]] = [[]]
    for position, following in pairwise([*example.target_positions, -1]):
        pieces[-1].append(example.token_ids[position])
        if following != position + 1:
            pieces.append([])
    return [text(piece) for piece in pieces[:-1]]


def prompt_days(example: Example) -> tuple[list[str], str]:
    """Return the days of the history and the target's day."""
    *history, last = text(example.token_ids).split("\n")
    days = [line.split()[1] for line in history if line.startswith("on ")]
    return days, last.split()[1]


def test_an_example_is_a_prompt_and_the_next_name() -> None:
    history = user(event(1, "Acme"), event(2, None), event(3, "Elsewhere"), event(9, "Acme Pets"))
    shown = {text(item.token_ids) for number in range(30) for item in source(history).epoch(number)}
    assert (
        f"{USER}age=44\non 2024-05-01 visit at Acme{END}\non 2024-05-02 visit \n"
        f"on 2024-05-03 visit at Elsewhere{END}\nthen 2024-05-09 Acme Pets{END}"
    ) in shown
    assert f"{USER}age=44\nthen 2024-05-01 Acme{END}" in shown


@given(events=st.lists(EVENTS, max_size=15), number=st.integers(0, 3))
def test_the_history_is_earlier_than_the_targets_day(events: list[Event], number: int) -> None:
    history = user(*sorted(events, key=lambda item: item.time))
    for example in source(history).epoch(number):
        days, target = prompt_days(example)
        assert days == sorted(days)
        assert all(day < target for day in days)
        assert days == [
            item.time.date().isoformat()
            for item in history.events
            if item.time.date().isoformat() < target
        ]


@given(events=st.lists(EVENTS, max_size=15), number=st.integers(0, 3))
def test_the_loss_is_on_all_names_of_the_catalogue_and_nothing_else(
    events: list[Event], number: int
) -> None:
    history = user(*sorted(events, key=lambda item: item.time))
    for example in source(history).epoch(number):
        *lines, last = text(example.token_ids).split("\n")
        names = [line.partition(" at ")[2] for line in lines if " at " in line]
        names.append(last.split(" ", 2)[2])
        assert taught(example) == [name for name in names if name.removesuffix(END) in KNOWN]
        assert taught(example)


@given(events=st.lists(EVENTS, max_size=15), number=st.integers(0, 3))
def test_first_of_day_puts_the_loss_on_one_advertiser_per_day(
    events: list[Event], number: int
) -> None:
    history = user(*sorted(events, key=lambda item: item.time))
    drawn = ExampleSource([history], RENDERER, TRIE, 0, first_of_day=True).epoch(number)
    for example in drawn:
        *lines, last = text(example.token_ids).split("\n")
        firsts: dict[str, str] = {}
        for line in lines:
            if " at " in line:
                firsts.setdefault(line.split()[1], line.partition(" at ")[2])
        names = [*firsts.values(), last.split(" ", 2)[2]]
        assert taught(example) == [name for name in names if name.removesuffix(END) in KNOWN]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("on {day} {action} ", "at {advertiser}{end} for {text}", "\n"), ["麦穗", "Acme Pets"]),
        (("on {day} {action} ", "\n"), ["Acme Pets"]),
        ((), ["Acme Pets"]),
    ],
)
def test_the_first_of_a_day_is_the_first_that_the_prompt_shows(
    pieces: tuple[str, ...], expected: list[str]
) -> None:
    """A piece with the advertiser may have a field that the first event lacks."""
    shown = replace(event(1, "麦穗"), text="tea")
    history = user(
        event(1, "Acme"), shown, event(2, "Acme"), event(3, "\u200b"), event(4, "Acme Pets")
    )
    renderer = PromptRenderer(replace(TEMPLATE, event=pieces), TOKENIZER)
    lessons = [
        taught(example)
        for number in range(30)
        for example in ExampleSource([history], renderer, TRIE, 0, first_of_day=True).epoch(number)
        if "2024-05-04" in text(example.token_ids)
    ]
    assert lessons
    assert all(lesson == [f"{name}{END}" for name in expected] for lesson in lessons)


@pytest.mark.parametrize("spelling", ["Acme", "ACME", "\u200bacme\u00a0"])
def test_names_with_the_same_tokens_are_swapped_alike(
    spelling: str,
) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.normalizer = normalizers.Lowercase()
    renderer = PromptRenderer(TEMPLATE, tokenizer)
    names = [f"Name {index}" for index in range(12)] + ["Acme"]
    trie = Trie.build([renderer.name_ids(name) for name in names], list(range(len(names))))
    swapped, expected = (
        ExampleSource(
            [user(event(1, name), event(2, name))], renderer, trie, 0, names=names, name_swaps=1.0
        )
        for name in (spelling, "Acme")
    )
    for number in range(9):
        assert swapped.epoch(number) == expected.epoch(number) != []


def test_an_example_is_a_day_with_an_advertiser_of_the_catalogue() -> None:
    history = user(event(1, "Acme"), *(event(day, "Elsewhere") for day in range(2, 10)))
    for number in range(20):
        (example,) = source(history).epoch(number)
        assert prompt_days(example) == ([], "2024-05-01")
        assert taught(example) == [f"Acme{END}"]


def test_the_first_token_of_a_prompt_is_no_target() -> None:
    bare = PromptTemplate(
        terminator=END, max_prompt_tokens=50, event=("{advertiser}{end}\n",), tail=("then ",)
    )
    history = user(event(1, "Acme"), event(1, "Acme"), event(2, "Acme Pets"))
    renderer = PromptRenderer(bare, TOKENIZER)
    lessons = {
        tuple(taught(item))
        for number in range(20)
        for item in source(history, renderer=renderer).epoch(number)
    }
    assert lessons == {(f"Acme{END}",), (f"Acme{END}", f"Acme Pets{END}")}


def test_events_dropped_for_the_budget_are_no_targets() -> None:
    short = PromptTemplate(
        terminator=END,
        max_prompt_tokens=12,
        head=(USER,),
        event=("{advertiser}{end}\n",),
        tail=("{day}",),
    )
    renderer = PromptRenderer(short, TOKENIZER)
    history = user(*(event(day, "Acme") for day in range(1, 30)))
    for example in source(history, renderer=renderer).epoch(0):
        assert len(example.token_ids) <= 12 + len(RENDERER.name_ids("Acme"))
        assert set(taught(example)) == {f"Acme{END}"}


def test_the_same_seed_and_epoch_give_the_same_examples() -> None:
    users = [
        user(*(event(day, KNOWN[(day + shift) % 3]) for day in range(1, 20)), user_id=str(shift))
        for shift in range(5)
    ]
    first = source(*users, seed=3)
    assert first.epoch(2) == first.epoch(2) == source(*users, seed=3).epoch(2)
    assert first.epoch(2) != first.epoch(1)
    assert first.epoch(2) != source(*users, seed=4).epoch(2)


def test_a_days_events_are_shuffled() -> None:
    history = user(event(1, "Acme", 1), event(1, "Acme Pets", 2), event(2, "麦穗"))
    lessons = {
        tuple(taught(item)) for number in range(40) for item in source(history).epoch(number)
    }
    assert (f"Acme{END}", f"Acme Pets{END}", f"麦穗{END}") in lessons
    assert (f"Acme Pets{END}", f"Acme{END}", f"麦穗{END}") in lessons


@pytest.mark.parametrize(
    "users",
    [
        [],
        [user(), user(event(1, None), event(2, None))],
        [user(event(1, "Elsewhere"), event(2, "Acme Pet"))],
    ],
    ids=["no users", "no advertisers", "none of the catalogue"],
)
def test_without_targets_there_are_no_examples(users: list[UserHistory]) -> None:
    assert source(*users).epoch(0) == []


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (50, 1), (150, 3)])
def test_a_long_history_gives_more_examples(count: int, expected: int) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    events = [
        Event(time=start + timedelta(days=index), action="visit", advertiser="Acme")
        for index in range(count)
    ]
    examples = source(user(*events)).epoch(0)
    assert len(examples) == expected
    assert len({tuple(example.token_ids) for example in examples}) == expected


def test_a_name_is_swapped_for_the_same_one_throughout() -> None:
    names = [f"Name {index}" for index in range(40)]
    tokenizer = scratch_tokenizer(names, 300, names)
    renderer = PromptRenderer(TEMPLATE, tokenizer)
    trie = Trie.build([renderer.name_ids(name) for name in names], list(range(len(names))))
    said = ["Name 3", "Name  7", "Elsewhere", "Name 3", "Name 9", "Name 7", "Name 3"]
    person = user(*(event(day, name) for day, name in enumerate(said, start=1)))

    def taught_names(name_swaps: float, epoch: int) -> list[str]:
        drawn = ExampleSource(
            [person], renderer, trie, 0, names=names, name_swaps=name_swaps
        ).epoch(epoch)
        (example,) = drawn
        ids = [example.token_ids[position] for position in example.target_positions]
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
        return text.split(END)[:-1]

    plain = [name.replace("  ", " ") for name in said if name != "Elsewhere"]
    swapped = 0
    for epoch in range(20):
        assert taught_names(0.0, epoch) == plain[: len(taught_names(0.0, epoch))]
        found = taught_names(1.0, epoch)
        wanted = plain[: len(found)]
        assert set(found) <= set(names)
        # One to one: equal where the true names are equal, and nowhere else.
        assert [found.index(name) for name in found] == [wanted.index(name) for name in wanted]
        swapped += found != wanted
        for here, there in zip(found, wanted, strict=True):
            apart = abs(np.log1p(names.index(here)) - np.log1p(names.index(there)))
            assert apart < 2  # about as popular
    assert swapped > 10
