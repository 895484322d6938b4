from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from adprior_build.data.event_log import UserHistory
from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.context import Event, UserContext, parse_context, parse_time
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.prompt.value_tokenizer import ValueTokenizer
from adprior_runtime.text.normalisation import normalise_text
from support.prompts import (
    AS_OF,
    COMPACT,
    FREE_TEXT,
    HISTORIES,
    NAMES,
    PROSE,
    TEMPLATES,
    TEXTS,
    TOKENIZER_JSON,
    load_tokenizer,
    make_context,
    make_event,
    make_renderer,
)
from support.tokens import END, USER, piece_tokenizer

BOS, EOS, UNKNOWN, BRAND, WORDS = "<bos>", "<eos>", "<unk>", "Acme", "new in"
SPECIAL = [UNKNOWN, BOS, EOS]
TOKENIZER_TEXTS = [
    "Acme Pets",
    "dog food",
    "new in town",
    "bos eos unk",
    "a b c d e f g < > /",
    BOS,
    EOS,
]
ALPHABET = sorted(set("".join(TOKENIZER_TEXTS)))


def _text(token_ids: Sequence[int]) -> str:
    return str(load_tokenizer().decode(list(token_ids), skip_special_tokens=False))


def test_a_context_becomes_this_prompt() -> None:
    context = make_context(
        make_event(3, advertiser="Acme", category="pets", text="dog food"),
        make_event(1, action="search"),
        age="30s",
        home="Oregon",
    )
    assert _text(make_renderer().render(context).token_ids) == (
        "A user. age: 30s; home: Oregon; "
        f"2024-05-28 visit Acme{END} in pets for dog food\n"
        "2024-05-30 search\n"
        "2024-05-31: after 1, "
    )


def test_an_empty_context_is_head_and_tail() -> None:
    prompt = make_renderer().render(make_context())
    assert _text(prompt.token_ids) == "A user. 2024-05-31:"
    assert (prompt.advertiser_spans, prompt.dropped_events) == ([], 0)


def test_an_interest_follows_the_same_prompt_and_its_own_tail() -> None:
    renderer = make_renderer(interest_tail=("category: ",))
    assert _text(renderer.interest_tail_ids) == "category: "
    plain = make_renderer()
    assert plain.interest_tail_ids == []
    context = make_context(make_event(3, advertiser="Acme", category="pets"))
    assert renderer.render(context) == plain.render(context)


def test_a_piece_with_an_absent_field_is_left_out() -> None:
    renderer = make_renderer(event=("[{advertiser} in {category}]", "({text}{end})", "."), tail=())
    both = make_event(advertiser="Acme", category="pets")
    assert _text(renderer.render(make_context(both)).token_ids) == "A user. [Acme in pets]."
    one = make_event(advertiser="Acme", text="food")
    assert _text(renderer.render(make_context(one)).token_ids) == f"A user. (food{END})."


def test_an_event_that_shows_only_its_day_is_left_out_and_days_count_from_the_shown_ones() -> None:
    renderer = make_renderer(head=(), event=("+{gap} ", "{advertiser}{end}"), tail=("+{gap}",))
    shown = make_event(9, advertiser="Acme"), make_event(4, advertiser="Acme")
    hidden = make_event(12), make_event(6, category="pets"), make_event(2, advertiser=" ")
    context = make_context(hidden[0], shown[0], hidden[1], shown[1], hidden[2])
    prompt = renderer.render(context)
    assert _text(prompt.token_ids) == f"Acme{END}+5 Acme{END}+4"
    assert prompt.token_ids == renderer.render(make_context(*shown)).token_ids
    assert prompt.dropped_events == 0
    sections = renderer.event_sections(context.history)
    assert [bool(section.token_ids) for section in sections] == [False, True, False, True, False]


def test_an_event_without_what_the_template_needs_is_left_out() -> None:
    pieces = ("+{gap} ", "{advertiser}{end}", "{category};")
    renderer = make_renderer(head=(), event=pieces, tail=("+{gap}",), event_needs=("advertiser",))
    whole = make_event(9, advertiser="Acme", category="pets")
    bare = make_event(4, advertiser="Acme")
    context = make_context(whole, make_event(6, category="pets"), bare)
    assert _text(renderer.render(context).token_ids) == f"Acme{END}pets;+5 Acme{END}+4"


def test_days_are_counted_between_dates_and_the_first_event_has_none() -> None:
    renderer = make_renderer(
        head=(), event=("{days_since_previous},",), tail=("{days_since_previous}",)
    )
    late, early = datetime(2024, 5, 1, 23, tzinfo=UTC), datetime(2024, 5, 2, 1, tzinfo=UTC)
    events = [make_event(time=late), make_event(time=early), make_event(time=early), make_event(3)]
    assert _text(renderer.render(make_context(*events)).token_ids) == "1,0,26,3"


def test_a_category_becomes_words_and_earlier_events_of_the_advertiser_are_counted() -> None:
    renderer = make_renderer(
        head=(), event=("{advertiser}{end}", " x{times}", " {category_words}", ";"), tail=()
    )
    names = ["Acme", "Birch & Co", "  Acme ", *["Acme"] * 10, None]
    events = [make_event(advertiser=name) for name in names]
    events[0] = make_event(advertiser="Acme", category="PET_FOOD_Dry")
    events[1] = make_event(advertiser="Birch & Co", category="__")
    shown = _text(renderer.render(make_context(*events)).token_ids).split(";")
    assert shown[:3] == [f"Acme{END} pet food dry", f"Birch & Co{END}", f"Acme{END} x1"]
    assert shown[-4:] == [*[f"Acme{END} x{count}" for count in (9, 10, 10)], ""]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_prompt_begins_with_the_head(template: PromptTemplate) -> None:
    renderer = make_renderer(template)
    head_ids = renderer.head_ids
    prompt = renderer.render(make_context(make_event(advertiser="Acme"), age="30s"))
    assert _text(head_ids) == template.head[0]
    assert prompt.token_ids[: len(head_ids)] == renderer.head_ids == head_ids


def test_literals_of_the_template_may_spell_special_tokens() -> None:
    token_ids = make_renderer(head=(f"{USER}a{END}",), tail=()).render(make_context()).token_ids
    special = [load_tokenizer().token_to_id(token) for token in (USER, END)]
    assert [token for token in token_ids if token < 3] == special


EARLIER: dict[str, Any] = {
    "earlier": ("{advertiser}", " {times}", ", "), "max_earlier_tokens": 20
}  # fmt: skip


def test_advertisers_of_dropped_events_come_first_those_with_most_events_before_others() -> None:
    long = "x" * 60
    names = ["Birch & Co", *["Acme"] * 12, "365", "麦穗", "365", None, "Zéphyr", "Zéphyr", long]
    events = [make_event(60 - day, advertiser=name) for day, name in enumerate(names)]
    pieces: dict[str, Any] = {"head": ("A:",), "event": ("{advertiser}{end}",), "tail": ()}
    whole = make_renderer(**pieces, **EARLIER)
    room = len(whole.earlier_ids(events[:-1], 99))
    others = len(whole.head_ids) + len(whole.name_ids(long))
    for tokens, last in ((room, "Birch & Co, "), (room - 1, "")):
        renderer = make_renderer(
            **pieces, **EARLIER | {"max_earlier_tokens": tokens}, max_prompt_tokens=others + tokens
        )
        prompt = renderer.render(make_context(*events))
        assert _text(prompt.token_ids) == f"A:Acme 10, Zéphyr 2, 365 2, 麦穗, {last}{long}{END}"
        assert prompt.dropped_events == len(events) - 1
        span = slice(*prompt.advertiser_spans[0])
        assert prompt.token_ids[span] == renderer.name_ids(long)


def test_a_history_that_fits_has_no_earlier_advertisers() -> None:
    context = make_context(make_event(3, advertiser="Acme"), make_event(1, advertiser="365"))
    assert make_renderer(**EARLIER).render(context) == make_renderer().render(context)


@settings(max_examples=200)
@given(history=HISTORIES, budget=st.integers(21, 120), chars=st.integers(0, 40))
def test_earlier_advertisers_stay_within_both_budgets(
    history: tuple[Event, ...], budget: int, chars: int
) -> None:
    renderer = make_renderer(head=(), tail=(), max_prompt_tokens=budget, **EARLIER)
    profile = {"age": "3" * chars}
    start = len(renderer.start_ids(profile))
    assume(start <= budget)
    prompt = renderer.render(UserContext(profile=profile, history=history, as_of=AS_OF))
    assert len(prompt.token_ids) <= budget
    dropped = history[: prompt.dropped_events]
    room = min(20, (budget - start) // 2)
    earlier = renderer.earlier_ids(dropped, room)
    assert len(earlier) <= room
    assert prompt.token_ids[start : start + len(earlier)] == earlier


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "name", [*NAMES, f"Acme{END}", "  Acme \t Pets\n", "x" * 200, "Ze\u0301phyr"]
)
def test_a_name_has_the_same_tokens_in_a_history_and_in_the_catalogue(
    template: PromptTemplate, name: str
) -> None:
    renderer = make_renderer(template, max_prompt_tokens=400)
    others = [make_event(5, advertiser="Zéphyr"), make_event(2, category="tea")]
    prompt = renderer.render(
        make_context(others[0], make_event(3, advertiser=name), others[1], age="30s")
    )
    start, stop = prompt.advertiser_spans[1]
    assert prompt.token_ids[start:stop] == renderer.name_ids(name)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=100)
@given(history=HISTORIES, profile=st.dictionaries(FREE_TEXT, TEXTS, max_size=3))
def test_spans_hold_the_names_of_the_newest_events_and_nothing_else_ends_a_name(
    template: PromptTemplate, history: tuple[Event, ...], profile: dict[str, str]
) -> None:
    renderer = make_renderer(template, max_prompt_tokens=300)
    prompt = renderer.render(UserContext(profile=profile, history=history, as_of=AS_OF))
    shown = [event.advertiser or "" for event in history[prompt.dropped_events :]]
    names = [name for name in shown if normalise_text(name)]
    spelled = [prompt.token_ids[start:stop] for start, stop in prompt.advertiser_spans]
    assert spelled == [renderer.name_ids(name) for name in names]
    assert prompt.token_ids.count(renderer.end_id) == len(names)


@pytest.mark.parametrize("spelling", ["Ze\u0301phyr", "Z\u200be\u0301phyr", "\ufeffZéphyr\u3000"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_spelling_of_a_name_has_the_same_tokens(
    template: PromptTemplate, spelling: str
) -> None:
    renderer = make_renderer(template)
    assert renderer.name_ids(spelling) == renderer.name_ids("Zéphyr")
    found, expected = (make_context(make_event(advertiser=name)) for name in (spelling, "Zéphyr"))
    assert renderer.render(found) == renderer.render(expected)


@pytest.mark.parametrize("field", ["advertiser", "category", "text"])
@pytest.mark.parametrize("blank", ["", " ", "\u200b", "\u00a0\ufeff"])
def test_a_value_without_visible_characters_is_absent(field: str, blank: str) -> None:
    changed: dict[str, Any] = {field: blank}
    for template in TEMPLATES:
        renderer = make_renderer(template)
        without = renderer.render(make_context(make_event()))
        assert renderer.render(make_context(make_event(**changed))) == without


def test_long_values_are_cut_after_the_spaces_are_evened_out() -> None:
    renderer = make_renderer(max_field_chars=6)
    assert _text(renderer.name_ids("  麦穗   Acme Pets")) == f"麦穗 Acm{END}"
    prompt = renderer.render(make_context(home="Massachusetts"))
    assert "home: Massac; " in _text(prompt.token_ids)


@pytest.mark.parametrize("denied", ["gender", "Gender", " GENDER\u200b"])
@pytest.mark.parametrize(
    "key",
    ["gender", "gender ", "\u00a0gender", "Gender", "g\u200bender", "\uff27\uff25nder", "gen der"],
)
def test_no_spelling_of_a_denied_key_reaches_the_prompt(denied: str, key: str) -> None:
    renderer = make_renderer(denied_profile_keys=(denied,))
    expected = renderer.render(make_context(age="30s"))
    assert renderer.render(make_context(**{key: "f", "age": "30s"})) == expected
    others = make_context(genders="f", age="30s")
    assert renderer.render(others) == make_renderer().render(others)


def test_renderers_may_share_a_tokenizer() -> None:
    tokenizer = load_tokenizer()
    first, second = PromptRenderer(PROSE, tokenizer), PromptRenderer(COMPACT, tokenizer)
    assert second.render(make_context()).token_ids == [tokenizer.token_to_id(USER)]
    assert first.name_ids(END) == second.name_ids(END)
    assert first.name_ids(END).count(first.end_id) == 1


def test_a_terminator_that_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(ArtefactError, match="terminator '</s>' is not in the tokenizer"):
        make_renderer(terminator="</s>")


def test_a_renderer_is_loaded_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(COMPACT.to_json(), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(TOKENIZER_JSON, encoding="utf-8")
    loaded = PromptRenderer.load(tmp_path / "prompt.json", tmp_path / "tokenizer.json")
    context = make_context(make_event(advertiser="Acme"), age="30s")
    assert loaded.render(context) == make_renderer(COMPACT).render(context)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"model": {"type": "X"}}'])
def test_a_corrupt_tokenizer_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(PROSE.to_json())
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: not a tokenizer"):
        PromptRenderer.load(tmp_path / "prompt.json", path)


@pytest.mark.parametrize("template", [PROSE, COMPACT, replace(PROSE, max_prompt_tokens=70)])
def test_a_history_rendered_for_training_has_the_tokens_of_prompts(
    template: PromptTemplate,
) -> None:
    renderer = make_renderer(template)
    for number in range(12):
        user = _user(number)
        sections = renderer.event_sections(user.events)
        for row in range(len(user.events) + 1):
            served = renderer.render(_context(user, row))
            shown = sections[served.dropped_events : row]
            events = [token for section in shown for token in section.token_ids]
            start = renderer.start_ids(user.profile)
            assert served.token_ids[: len(start) + len(events)] == start + events


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


def _context(user: UserHistory, row: int) -> UserContext:
    """Return what a server reads from a client's JSON, with the user's events before a row."""
    history = [asdict(e) | {"time": e.time.isoformat()} for e in user.events[:row]]
    document = {"profile": user.profile, "history": history, "as_of": "2024-12-31"}
    return parse_context(json.dumps(document).encode())


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([BRAND, AddedToken(WORDS, lstrip=True, rstrip=True)])
    return tokenizer


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TOKENIZER_TEXTS, *[BRAND] * 9], trainer)
    return tokenizer


def _whole_words_first() -> Tokenizer:
    """Llama 3 has such a tokenizer: a word of the vocabulary is one token without any merge."""
    vocab = {piece: place for place, piece in enumerate([*SPECIAL, *ALPHABET, BRAND])}
    model = models.BPE(vocab=vocab, merges=[], unk_token=UNKNOWN, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _metaspace() -> Tokenizer:
    pieces = [(piece, -1.0) for piece in [*SPECIAL, f"▁{BOS}", BRAND, "▁", *ALPHABET]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _words() -> Tokenizer:
    vocab = {word: place for place, word in enumerate([*SPECIAL, BRAND, "Pets", "dog", "food"])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _word_pieces() -> Tokenizer:
    inner = [f"##{letter}" for letter in ALPHABET]
    pieces = [*SPECIAL, BRAND, *ALPHABET, *inner, f"##{BOS}"]
    vocab = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _pieces() -> Tokenizer:
    return piece_tokenizer(TOKENIZER_TEXTS, 300, ["Acme Pets"])


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level BPE": _byte_level,
    "BPE, whole words first": _whole_words_first,
    "Unigram with Metaspace": _metaspace,
    "WordLevel": _words,
    "WordPiece": _word_pieces,
    "names as pieces": _pieces,
}
TOKENIZERS = {kind: _with_added(make()) for kind, make in KINDS.items()}
VALUES = st.lists(
    st.sampled_from([*SPECIAL, BRAND, WORDS, "Acme Pets", "<|end|>", " ", "<BOS>", "dog", "é"])
    | st.text(max_size=3),
    max_size=5,
).map("".join)


def _values(tokenizer: Tokenizer, terminator: str = EOS) -> ValueTokenizer:
    end_id = tokenizer.token_to_id(terminator)
    assert end_id is not None
    return ValueTokenizer(tokenizer, end_id)


def _added(tokenizer: Tokenizer) -> set[int]:
    unknown = tokenizer.token_to_id(UNKNOWN)
    return set(tokenizer.get_added_tokens_decoder()) - {unknown}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(value=VALUES)
def test_no_value_becomes_a_special_or_an_added_token(kind: str, value: str) -> None:
    tokenizer = TOKENIZERS[kind]
    values = _values(tokenizer)
    assert _added(tokenizer).isdisjoint(values.encode(normalise_text(value)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [BOS, EOS, f"a{BOS}b", BRAND, f"{BRAND}{BRAND}", WORDS, "<BOS>"])
def test_a_value_that_spells_such_a_token_still_has_tokens(kind: str, value: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = _values(tokenizer).encode(value)
    assert ids
    assert _added(tokenizer).isdisjoint(ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["dog food", "Pets", "a bc d", "é", ""])
def test_other_values_have_the_tokenizers_own_tokens(kind: str, value: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = _values(tokenizer).encode(value)
    assert list(ids) == tokenizer.encode(value, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_templates_special_tokens_and_no_others(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    template = PromptTemplate(
        terminator=EOS,
        max_prompt_tokens=400,
        head=(BOS,),
        profile=("{key}{value}", "{pair}"),
        event=("{action}{text}{category}", "{advertiser}{end}"),
    )
    event = Event(
        time=parse_time("2024-05-01", "time"), action=BOS, advertiser=EOS, text=BRAND, category=BOS
    )
    context = UserContext(
        profile={BOS: EOS, BRAND: WORDS}, history=[event], as_of=parse_time("2024-05-31", "as_of")
    )
    renderer = PromptRenderer(template, tokenizer)
    found = [token for token in renderer.render(context).token_ids if token in _added(tokenizer)]
    assert found == [tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)]
    assert renderer.name_ids(f"{BOS} {EOS}").count(renderer.end_id) == 1


def test_the_terminator_is_kept_out_though_it_is_an_ordinary_token() -> None:
    tokenizer = _words()
    end_id = tokenizer.token_to_id("food")
    ids = _values(tokenizer, "food").encode("dog food")
    assert tokenizer.token_to_id("dog") in ids
    assert end_id not in ids


def test_byte_tokens_stay_text_although_they_are_added_tokens() -> None:
    spelt = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {piece: place for place, piece in enumerate([*SPECIAL, *ALPHABET, *spelt])}
    model = models.BPE(vocab=vocab, merges=[], unk_token=UNKNOWN, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(spelt)
    ids = _values(tokenizer).encode("aé")
    assert [tokenizer.id_to_token(token) for token in ids] == ["a", "<0xC3>", "<0xA9>"]


def test_a_tokenizer_with_a_letter_among_its_added_tokens_is_refused() -> None:
    tokenizer = _whole_words_first()
    tokenizer.add_tokens(["a"])
    with pytest.raises(ArtefactError, match="added token 'a' is needed to write ordinary text"):
        ValueTokenizer(tokenizer, 2)


def test_a_tokenizer_that_fails_on_an_unknown_character_is_refused() -> None:
    tokenizer = Tokenizer(models.Unigram([("a", -1.0), (EOS, -1.0)]))
    with pytest.raises(ArtefactError, match="tokenizer: it fails on a character") as caught:
        ValueTokenizer(tokenizer, 1)
    assert "\n" not in str(caught.value)
