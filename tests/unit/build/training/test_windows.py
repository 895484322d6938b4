from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.data.event_log import UserHistory
from adprior_build.training.windows import NEW, SEEN, Window, WindowSource
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from support.tokens import END, USER, piece_tokenizer

KNOWN = ["Acme", "Acme Pets", "麦穗"]
UNKNOWN = ["Acme Pet", "Elsewhere"]
TEMPLATE = PromptTemplate(
    terminator=END,
    max_prompt_tokens=60,
    head=(USER,),
    profile=("{value};",),
    event=("+{gap}|", "{advertiser}{end}", "in {category}|"),
    tail=("+{gap}|",),
)
TOKENIZER = piece_tokenizer(KNOWN * 9, 300, [*KNOWN, *UNKNOWN])
RENDERER = PromptRenderer(TEMPLATE, TOKENIZER)
TRIE = Trie.build([RENDERER.name_ids(name) for name in KNOWN], list(range(len(KNOWN))))
START = datetime(2024, 5, 1, 1, tzinfo=UTC)
EVENTS = st.builds(
    Event,
    time=st.integers(0, 80).map(lambda half: START + half * timedelta(hours=12)),
    action=st.just("visit"),
    advertiser=st.none() | st.sampled_from(KNOWN + UNKNOWN),
    category=st.none() | st.sampled_from(["tea", "dog food"]),
)


def event(day: int, advertiser: str | None, category: str | None = None) -> Event:
    return Event(
        time=START + timedelta(days=day), action="visit", advertiser=advertiser, category=category
    )


def user(*events: Event) -> UserHistory:
    return UserHistory(user_id="a", profile={"age": "44"}, events=events)


def with_smaller_budgets(template: PromptTemplate) -> list[PromptRenderer]:
    """Return a renderer for each budget up to the template's."""
    budgets = range(1, template.max_prompt_tokens + 1)
    templates = (replace(template, max_prompt_tokens=budget) for budget in budgets)
    return [PromptRenderer(each, TOKENIZER, cached_values=100) for each in templates]


RENDERERS = with_smaller_budgets(TEMPLATE)


def source(*users: UserHistory, seed: int = 0, template: PromptTemplate = TEMPLATE) -> WindowSource:
    return WindowSource(users, PromptRenderer(template, TOKENIZER), TRIE, seed)


def text(window: Window) -> str:
    return str(TOKENIZER.decode(window.token_ids.tolist(), skip_special_tokens=False))


def taught(window: Window) -> list[str]:
    """Return the names that are targets."""
    spelt = TOKENIZER.decode(window.token_ids[window.targets].tolist(), skip_special_tokens=False)
    return str(spelt).split(END)[:-1]


def test_a_window_is_the_prompt_with_every_name_as_a_target() -> None:
    history = user(event(1, "Acme", "tea"), event(2, "Elsewhere"), event(2, None, "tea"),
                   event(9, "Acme"), event(11, "麦穗", "tea"))  # fmt: skip
    shown = {text(window): window for n in range(20) for window in source(history).epoch(n)}
    start = f"{USER}44;Acme{END}in tea|+1|"
    end = f"+7|Acme{END}+2|麦穗{END}"  # what follows the last name is cut off
    assert shown.keys() == {
        f"{start}Elsewhere{END}in tea|{end}",
        f"{start}in tea|Elsewhere{END}{end}",
    }
    for window in shown.values():
        assert taught(window) == ["Acme", "Acme", "麦穗"]
        assert window.kinds.tolist() == [NEW, NEW, SEEN, SEEN, NEW, NEW]
        assert (window.names, window.new_names) == (3, 2)


@given(events=st.lists(EVENTS, max_size=60), number=st.integers(0, 3))
def test_every_name_of_the_catalogue_is_a_target_once(events: list[Event], number: int) -> None:
    history = user(*sorted(events, key=lambda item: item.time))
    windows = source(history).epoch(number)
    names = Counter(name for window in windows for name in taught(window))
    assert names == Counter(item.advertiser for item in events if item.advertiser in KNOWN)
    different = {item.advertiser for item in events} & set(KNOWN)
    assert sum(window.new_names for window in windows) == len(different)


@given(events=st.lists(EVENTS, min_size=1, max_size=60), number=st.integers(0, 3))
def test_a_name_follows_what_a_server_would_show(events: list[Event], number: int) -> None:
    """Up to the shuffled day, a window is a prompt whose budget is smaller."""
    for item in events:
        object.__setattr__(item, "time", item.time.replace(hour=1))
    by_day = {item.time.date(): item for item in events}  # one a day, so nothing is shuffled
    history = user(*(by_day[day] for day in sorted(by_day)))
    prompts = set()
    for row, target in enumerate(history.events):
        context = UserContext(
            profile=history.profile, history=history.events[:row], as_of=target.time
        )
        for renderer in RENDERERS:
            try:
                prompts.add(tuple(renderer.render(context).token_ids))
            except InvalidRequestError:  # the profile alone is longer
                continue
    for window in source(history).epoch(number):
        ids, targets = window.token_ids.tolist(), set(window.targets.tolist())
        starts = [at for at in targets if at - 1 not in targets or ids[at - 1] == RENDERER.end_id]
        assert all(tuple(ids[:at]) in prompts for at in starts)


def test_a_later_window_begins_with_events_of_the_one_before() -> None:
    template = replace(TEMPLATE, max_prompt_tokens=120)
    history = user(*(event(day, KNOWN[day % 3], "tea") for day in range(90)))
    windows = source(history, template=template).epoch(0)
    assert len(windows) > 3
    assert sum(len(taught(window)) for window in windows) == 90
    for window in windows:
        assert len(window.token_ids) <= 120 + 2
        assert text(window).startswith(f"{USER}44;")
    repeated = [text(window).count(END) - window.names for window in windows]
    assert repeated.count(0) == 1  # the first window
    assert set(repeated) <= {0, 1, 2, 3}


def test_an_event_that_no_prompt_has_room_for_is_left_out() -> None:
    history = user(event(1, "Acme"), event(2, None, "x" * 64), event(3, "Acme Pets"))
    names = [name for window in source(history).epoch(0) for name in taught(window)]
    assert sorted(names) == ["Acme", "Acme Pets"]


def test_the_first_token_of_a_prompt_is_no_target() -> None:
    template = replace(TEMPLATE, head=(), profile=())
    (window,) = source(user(event(1, "Acme"), event(2, "Acme")), template=template).epoch(0)
    assert taught(window) == ["Acme"]
    assert window.kinds.tolist() == [SEEN, SEEN]


def test_a_profile_beyond_the_budget_is_refused() -> None:
    template = replace(TEMPLATE, max_prompt_tokens=3)
    with pytest.raises(InvalidRequestError, match="profile: 4 tokens leave no room"):
        source(user(event(1, "Acme")), template=template).epoch(0)


def test_a_template_without_names_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"no event piece has \{advertiser\}\{end\}"):
        source(template=replace(TEMPLATE, event=("{advertiser}|",)))


def test_the_same_seed_and_epoch_give_the_same_windows() -> None:
    users = [user(*(event(day // 3, KNOWN[(day + n) % 3]) for day in range(90))) for n in range(5)]
    texts = [
        [text(window) for window in source(*users, seed=seed).epoch(number)]
        for seed, number in ((3, 2), (3, 2), (3, 1), (4, 2))
    ]
    assert texts[0] == texts[1]
    assert all(one != other for one, other in pairwise(texts[1:]))


@pytest.mark.parametrize(
    "users",
    [[], [user(), user(event(1, None))], [user(event(1, "Elsewhere"), event(2, "Acme Pet"))]],
    ids=["no users", "no advertisers", "none of the catalogue"],
)
def test_without_targets_there_are_no_windows(users: list[UserHistory]) -> None:
    assert source(*users).epoch(0) == []


def test_a_window_begins_as_the_prompt_that_drops_the_same_events() -> None:
    template = replace(TEMPLATE, earlier=("{advertiser}", " {times}", ", "), max_earlier_tokens=16)
    history = user(*(event(day, KNOWN[day % 3 == 0]) for day in range(40)))
    renderer = PromptRenderer(template, TOKENIZER)
    windows = source(history, template=template).epoch(0)
    assert sum(window.names for window in windows) == len(history.events)
    sections = renderer.event_sections(history.events)
    start = renderer.start_ids({"age": "44"})
    beginnings = [
        [*start, *renderer.earlier_ids(history.events[:dropped], 16), *section.token_ids]
        for dropped, section in enumerate(sections)
    ]
    dropped = [
        next(n for n, ids in enumerate(beginnings) if window.token_ids.tolist()[: len(ids)] == ids)
        for window in windows
    ]
    assert sum(number > 0 for number in dropped) == len(windows) - 1
