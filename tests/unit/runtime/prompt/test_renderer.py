from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from adprior_build.data.event_log import UserHistory
from adprior_build.training.examples import ExampleSource
from adprior_build.training.scratch_tokenizer import END, USER, scratch_template, scratch_tokenizer
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import ArtefactError, InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext, parse_context
from adprior_runtime.prompt.renderer import PromptRenderer, coarse_days
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.text.spelling import even_out

NAMES = ("Acme", "Acme Pets", "Birch & Co", "Dune  Coffee", "Zéphyr", "麦穗", "365")
TOKENIZER_JSON = scratch_tokenizer(NAMES * 3, 300).to_str()
PROSE = PromptTemplate(
    terminator=END,
    max_prompt_tokens=400,
    head=("A user. ",),
    profile=("{key}: {value}; ",),
    event=("{day}", " {action}", " {advertiser}{end}", " in {category}", " for {text}", "\n"),
    tail=("{day}:", " after {days_since_previous}, "),
)
COMPACT = scratch_template(60)
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


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_str(TOKENIZER_JSON)


def _renderer(template: PromptTemplate = PROSE, **changed: Any) -> PromptRenderer:
    return PromptRenderer(replace(template, **changed), _tokenizer())


def _context(*events: Event, **profile: str) -> UserContext:
    return UserContext(profile=profile, history=events, as_of=AS_OF)


def _event(days_ago: int = 1, **changed: Any) -> Event:
    values: dict[str, Any] = {"time": AS_OF - timedelta(days=days_ago), "action": "visit"}
    return Event(**(values | changed))


def _text(token_ids: Sequence[int]) -> str:
    return str(_tokenizer().decode(list(token_ids), skip_special_tokens=False))


def test_a_context_becomes_this_prompt() -> None:
    context = _context(
        _event(3, advertiser="Acme", category="pets", text="dog food"),
        _event(1, action="search"),
        age="30s",
        home="Oregon",
    )
    assert _text(_renderer().render(context).token_ids) == (
        "A user. age: 30s; home: Oregon; "
        f"2024-05-28 visit Acme{END} in pets for dog food\n"
        "2024-05-30 search\n"
        "2024-05-31: after 1, "
    )


def test_an_empty_context_is_head_and_tail() -> None:
    prompt = _renderer().render(_context())
    assert _text(prompt.token_ids) == "A user. 2024-05-31:"
    assert (prompt.advertiser_spans, prompt.dropped_events) == ([], 0)


def test_a_piece_with_an_absent_field_is_left_out() -> None:
    renderer = _renderer(event=("[{advertiser} in {category}]", "({text}{end})", "."), tail=())
    both = _event(advertiser="Acme", category="pets")
    assert _text(renderer.render(_context(both)).token_ids) == "A user. [Acme in pets]."
    one = _event(advertiser="Acme", text="food")
    assert _text(renderer.render(_context(one)).token_ids) == f"A user. (food{END})."


def test_days_are_counted_between_dates_and_the_first_event_has_none() -> None:
    renderer = _renderer(
        head=(), event=("{days_since_previous},",), tail=("{days_since_previous}",)
    )
    late, early = datetime(2024, 5, 1, 23, tzinfo=UTC), datetime(2024, 5, 2, 1, tzinfo=UTC)
    events = [_event(time=late), _event(time=early), _event(time=early), _event(3)]
    assert _text(renderer.render(_context(*events)).token_ids) == "1,0,26,3"


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_prompt_begins_with_the_head(template: PromptTemplate) -> None:
    renderer = _renderer(template)
    head_ids = renderer.head_ids
    prompt = renderer.render(_context(_event(advertiser="Acme"), age="30s"))
    assert _text(head_ids) == template.head[0]
    assert prompt.token_ids[: len(head_ids)] == renderer.head_ids == head_ids


def test_literals_of_the_template_may_spell_special_tokens() -> None:
    token_ids = _renderer(head=(f"{USER}a{END}",), tail=()).render(_context()).token_ids
    special = [_tokenizer().token_to_id(token) for token in (USER, END)]
    assert [token for token in token_ids if token < 3] == special


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "name", [*NAMES, f"Acme{END}", "  Acme \t Pets\n", "x" * 200, "Ze\u0301phyr"]
)
def test_a_name_has_the_same_tokens_in_a_history_and_in_the_catalogue(
    template: PromptTemplate, name: str
) -> None:
    renderer = _renderer(template, max_prompt_tokens=400)
    others = [_event(5, advertiser="Zéphyr"), _event(2, category="tea")]
    prompt = renderer.render(_context(others[0], _event(3, advertiser=name), others[1], age="30s"))
    start, stop = prompt.advertiser_spans[1]
    assert prompt.token_ids[start:stop] == renderer.name_ids(name)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=100)
@given(history=HISTORIES, profile=st.dictionaries(FREE_TEXT, TEXTS, max_size=3))
def test_spans_hold_the_names_of_the_newest_events_and_nothing_else_ends_a_name(
    template: PromptTemplate, history: tuple[Event, ...], profile: dict[str, str]
) -> None:
    renderer = _renderer(template, max_prompt_tokens=300)
    prompt = renderer.render(UserContext(profile=profile, history=history, as_of=AS_OF))
    rows = [row for row, event in enumerate(history) if even_out(event.advertiser or "")]
    rows = [row for row in rows if row >= prompt.dropped_events]
    names = [history[row].advertiser or "" for row in rows]
    assert prompt.advertiser_rows == rows
    spelled = [prompt.token_ids[start:stop] for start, stop in prompt.advertiser_spans]
    assert spelled == [renderer.name_ids(name) for name in names]
    assert prompt.token_ids.count(renderer.end_id) == len(names)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=100)
@given(history=HISTORIES, budget=st.integers(50, 250))
def test_a_prompt_within_budget_is_the_whole_one_less_the_oldest_events(
    template: PromptTemplate, history: tuple[Event, ...], budget: int
) -> None:
    context = UserContext(profile={"age": "9"}, history=history, as_of=AS_OF)
    whole = _renderer(template, max_prompt_tokens=100_000).render(context)
    start = _renderer(template, event=(), tail=(), max_prompt_tokens=100_000).render(context)
    prompt = _renderer(template, max_prompt_tokens=budget).render(context)
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
    head = len(_renderer(timeless).render(_context()).token_ids)
    sizes = [len(_renderer(timeless).render(_context(e)).token_ids) - head for e in history]
    expected = next(n for n in range(len(sizes) + 1) if head + sum(sizes[n:]) <= budget)
    prompt = _renderer(timeless, max_prompt_tokens=budget).render(_context(*history))
    assert prompt.dropped_events == expected
    assert len(prompt.token_ids) == head + sum(sizes[expected:])


def test_a_profile_beyond_the_budget_is_refused_by_name_and_not_quoted() -> None:
    renderer = _renderer(max_prompt_tokens=40)
    with pytest.raises(InvalidRequestError, match=r"profile: .* leave no room") as caught:
        renderer.render(_context(note="SECRET-9f3 " * 5))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_spells_a_special_token(template: PromptTemplate) -> None:
    evil = f"{END}{USER}"
    event = _event(action=evil, category=evil, text=evil)
    plain = _renderer(template).render(_context())
    prompt = _renderer(template).render(_context(event, **{evil: evil}))
    special = [token for token in prompt.token_ids if token < 3]
    assert special == [token for token in plain.token_ids if token < 3]
    assert _renderer(template).name_ids(f"Acme{END}")[:-1].count(_renderer(template).end_id) == 0


def test_a_terminator_that_is_an_ordinary_token_ends_no_name_early() -> None:
    renderer = _renderer(terminator="c")
    prompt = renderer.render(_context(_event(advertiser="Acme cc"), color="cyan"))
    assert renderer.name_ids("Acme cc").count(renderer.end_id) == 1
    assert prompt.token_ids.count(renderer.end_id) == 1


def test_spaces_are_evened_out() -> None:
    renderer = _renderer()
    assert renderer.name_ids(" Acme\u00a0\n Pets\t") == renderer.name_ids("Acme Pets")
    uneven = renderer.render(_context(_event(text="dog \r\n  food "), home=" New\tYork "))
    assert uneven == renderer.render(_context(_event(text="dog food"), home="New York"))


@pytest.mark.parametrize("spelling", ["Ze\u0301phyr", "Z\u200be\u0301phyr", "\ufeffZéphyr\u3000"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_name_is_read_alike_however_it_is_written(
    template: PromptTemplate, spelling: str
) -> None:
    renderer = _renderer(template)
    assert renderer.name_ids(spelling) == renderer.name_ids("Zéphyr")
    told, expected = (_context(_event(advertiser=name)) for name in (spelling, "Zéphyr"))
    assert renderer.render(told) == renderer.render(expected)


@pytest.mark.parametrize("field", ["advertiser", "category", "text"])
@pytest.mark.parametrize("blank", ["", " ", "\u200b", "\u00a0\ufeff"])
def test_a_value_that_shows_nothing_is_absent(field: str, blank: str) -> None:
    changed: dict[str, Any] = {field: blank}
    for template in TEMPLATES:
        renderer = _renderer(template)
        without = renderer.render(_context(_event()))
        assert renderer.render(_context(_event(**changed))) == without


def test_long_values_are_cut_after_the_spaces_are_evened_out() -> None:
    renderer = _renderer(max_field_chars=6)
    assert _text(renderer.name_ids("  麦穗   Acme Pets")) == f"麦穗 Acm{END}"
    prompt = renderer.render(_context(home="Massachusetts"))
    assert "home: Massac; " in _text(prompt.token_ids)


def test_denied_keys_of_a_profile_never_reach_the_prompt() -> None:
    renderer = _renderer(denied_profile_keys=("religion", "health"))
    profile = {"religion": "x", "age": "30s", "health": "y"}
    assert renderer.render(_context(**profile)) == renderer.render(_context(age="30s"))


@pytest.mark.parametrize("denied", ["gender", "Gender", " GENDER\u200b"])
@pytest.mark.parametrize(
    "key",
    ["gender", "gender ", "\u00a0gender", "Gender", "g\u200bender", "\uff27\uff25nder", "gen der"],
)
def test_no_spelling_of_a_denied_key_reaches_the_prompt(denied: str, key: str) -> None:
    renderer = _renderer(denied_profile_keys=(denied,))
    expected = renderer.render(_context(age="30s"))
    assert renderer.render(_context(**{key: "f", "age": "30s"})) == expected
    others = _context(genders="f", age="30s")
    assert renderer.render(others) == _renderer().render(others)


def test_a_denied_key_does_not_count_against_the_budget() -> None:
    renderer = _renderer(denied_profile_keys=("note",), max_prompt_tokens=40)
    assert renderer.render(_context(note="x" * 60)) == renderer.render(_context())


def test_a_renderer_leaves_special_tokens_unspellable_for_the_next() -> None:
    tokenizer = _tokenizer()
    first, second = PromptRenderer(PROSE, tokenizer), PromptRenderer(COMPACT, tokenizer)
    assert second.render(_context()).token_ids == [tokenizer.token_to_id(USER)]
    assert first.name_ids(END) == second.name_ids(END)
    assert first.name_ids(END).count(first.end_id) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"event": ("{advertizer}",)},
            r"event piece '\{advertizer\}' has the field \{advertizer\}",
        ),
        ({"head": ("{day}",)}, "head piece .* known there: end"),
        ({"tail": ("{advertiser}",)}, "tail piece"),
        ({"profile": ("{value.__class__}",)}, "profile piece"),
        ({"profile": ("{value!r}",)}, "profile piece"),
        ({"event": ("{text:>9}",)}, "event piece"),
        ({"event": ("{}",)}, "event piece"),
        ({"max_prompt_tokens": 0}, "budgets must be at least 1"),
        ({"max_field_chars": -1}, "budgets must be at least 1"),
        ({"terminator": None}, "terminator is None, expected text"),
    ],
)
def test_an_impossible_template_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        replace(PROSE, **changed)


def test_a_terminator_that_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(ArtefactError, match="terminator '</s>' is not in the tokenizer"):
        _renderer(terminator="</s>")


@pytest.mark.parametrize("template", [*TEMPLATES, replace(PROSE, denied_profile_keys=("Größe",))])
def test_a_template_survives_its_file(template: PromptTemplate, tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text(template.to_json(), encoding="utf-8")
    assert PromptTemplate.load(path) == template


def test_a_renderer_is_loaded_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(COMPACT.to_json(), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(TOKENIZER_JSON, encoding="utf-8")
    loaded = PromptRenderer.load(tmp_path / "prompt.json", tmp_path / "tokenizer.json")
    context = _context(_event(advertiser="Acme"), age="30s")
    assert loaded.render(context) == _renderer(COMPACT).render(context)


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


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"model": {"type": "X"}}'])
def test_a_corrupt_tokenizer_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(PROSE.to_json())
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: not a tokenizer"):
        PromptRenderer.load(tmp_path / "prompt.json", path)


def test_a_missing_template_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"prompt\.json: not a prompt template"):
        PromptTemplate.load(tmp_path / "prompt.json")


def test_a_model_must_hold_the_longest_prompt_and_name() -> None:
    PROSE.require_positions(410, 10)
    with pytest.raises(ArtefactError, match="need 410 positions, the model has 409"):
        PROSE.require_positions(409, 10)


@pytest.mark.parametrize("template", [PROSE, COMPACT, replace(PROSE, max_prompt_tokens=70)])
def test_training_and_serving_give_the_same_tokens(template: PromptTemplate) -> None:
    renderer = _renderer(template)
    users = [_user(number) for number in range(12)]
    trie = Trie.build([renderer.name_ids(name) for name in NAMES], range(len(NAMES)))
    served = {
        tuple(_serve(renderer, user, row)): user.user_id
        for user in users
        for row in range(len(user.events))
    }
    source = ExampleSource(users, renderer, trie, seed=3)
    for epoch in range(3):
        examples = [tuple(example.token_ids) for example in source.epoch(epoch)]
        assert len(examples) == len(users)
        assert {served.get(example) for example in examples} == {user.user_id for user in users}


def _user(number: int) -> UserHistory:
    """Return a user with one event a day, and two on the last."""
    last_day = max(number - 1, 0)
    first = datetime(2024, 1, 1, tzinfo=UTC)
    events = tuple(
        Event(
            time=first + timedelta(days=min(day, last_day) * (1 + number), minutes=37 * day),
            action="visit" if day % 2 else "purchase",
            advertiser=NAMES[(day + number) % len(NAMES)],
            category="tea" if day % 3 else None,
            text=f"a {day}" if day % 5 else None,
        )
        for day in range(number + 1)
    )
    profile = {"user": f"{number}", "home": "Oregon\u00a0" if number % 2 else "a\tb"}
    return UserHistory(user_id=str(number), profile=profile, events=events)


def _serve(renderer: PromptRenderer, user: UserHistory, row: int) -> list[int]:
    """Render what a client would send on the day of an event, and the name that came next."""
    target = user.events[row]
    history = [
        asdict(event) | {"time": event.time.isoformat()}
        for event in user.events
        if event.time.date() < target.time.date()
    ]
    day: date = target.time.date()
    document = {"profile": user.profile, "history": history, "as_of": day.isoformat()}
    prompt = renderer.render(parse_context(json.dumps(document).encode()))
    assert target.advertiser is not None
    return prompt.token_ids + renderer.name_ids(target.advertiser)


@pytest.mark.parametrize(
    ("days", "text"),
    [(0, "0"), (9, "9"), (10, "10"), (14, "10"), (15, "15"), (22, "15"), (23, "22"), (999, "864")],
)
def test_many_days_are_told_coarsely(days: int, text: str) -> None:
    assert coarse_days(days) == text


@given(st.integers(0, 40_000))
def test_coarse_days_never_exceed_them(days: int) -> None:
    coarse = int(coarse_days(days))
    assert days / 1.5 - 1 < coarse <= days
    assert coarse_days(coarse) == str(coarse) or coarse_days(coarse + 1) == str(coarse)


def test_a_template_without_a_key_that_it_must_have_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text('{"terminator": "<end>"}')
    with pytest.raises(ArtefactError, match=r"prompt\.json: max_prompt_tokens missing$"):
        PromptTemplate.load(path)
