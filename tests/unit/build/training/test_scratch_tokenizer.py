from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.data.event_log import UserHistory
from adprior_build.training.scratch_tokenizer import (
    END,
    PAD,
    USER,
    profile_texts,
    scratch_template,
    scratch_tokenizer,
    training_texts,
)
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.terminal import progress

FREQUENT = ["Dune Coffee", "Birch & Co", "麦穗"]
VOCABULARY = 320
TOKENIZER = scratch_tokenizer(FREQUENT * 20, VOCABULARY)
TOKENIZER.encode_special_tokens = True


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", [END, PAD, USER, f"Acme{END}", "a\u0000b", " a ", "👩‍🚀"])
def test_a_value_that_spells_a_special_token_is_text(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & {TOKENIZER.token_to_id(token) for token in (PAD, END, USER)}


def test_the_vocabulary_holds_every_byte_and_is_limited() -> None:
    assert TOKENIZER.get_vocab_size() <= VOCABULARY
    smallest = scratch_tokenizer(FREQUENT, 1)
    assert smallest.get_vocab_size() == 256 + 3
    assert smallest.decode(smallest.encode("麦穗").ids) == "麦穗"


def test_the_same_texts_give_the_same_tokenizer() -> None:
    again = scratch_tokenizer(iter(FREQUENT * 20), VOCABULARY)
    assert again.to_str() == scratch_tokenizer(FREQUENT * 20, VOCABULARY).to_str()


def test_the_template_fits_the_tokenizer() -> None:
    template = scratch_template(50)
    assert template.max_prompt_tokens == 50
    renderer = PromptRenderer(template, TOKENIZER)
    assert renderer.head_ids == [TOKENIZER.token_to_id(USER)] == [2]
    assert renderer.end_id == TOKENIZER.token_to_id(END)


def test_training_texts_are_names_profiles_and_events() -> None:
    event = Event(
        time=datetime(2024, 5, 31, tzinfo=UTC),
        action="visit",
        advertiser="Acme",
        category="FOOD",
        text="a title",
    )
    bare = Event(time=event.time, action="visit")
    user = UserHistory(user_id="a", profile={"age": "44"}, events=[event, bare, event])
    texts = list(training_texts([user], ["Acme", "Kite"]))
    assert texts[:2] == ["Acme", "Kite"]
    assert texts[-5:] == ["age=44", "Acme", "FOOD", "Acme", "FOOD"]
    assert {"0", "9", "10", "15", "22"} < set(texts)


def test_learning_the_vocabulary_of_a_long_log_shows_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUICK_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    users = [UserHistory(user_id=name, profile={"age": "44"}) for name in "abc"]
    scratch_tokenizer(training_texts(users, ["Acme"]), VOCABULARY)
    assert "learning the vocabulary: " in capsys.readouterr().err


def test_a_shared_profile_value_is_one_token_and_no_advertisers_name() -> None:
    users = [
        UserHistory(user_id=str(number), profile={"state": state}, events=[])
        for number, state in enumerate(["Oregon"] * 5 + ["Utah"] * 4)
    ]
    assert profile_texts(users) == ["state=Oregon"]
    tokenizer = scratch_tokenizer(FREQUENT * 20, VOCABULARY, ["Oregon", *profile_texts(users)])
    renderer = PromptRenderer(scratch_template(50), tokenizer)
    moment = datetime(2022, 7, 1, tzinfo=UTC)
    prompt = renderer.render(UserContext(profile=users[0].profile, history=(), as_of=moment))
    (name, _) = renderer.name_ids("Oregon")
    (user, pair) = prompt.token_ids
    assert pair not in {name, user}
    assert tokenizer.id_to_token(pair) == "state=Oregon"


def test_a_name_is_one_token_and_other_texts_take_the_fewest() -> None:
    assert [len(TOKENIZER.encode(name).ids) for name in FREQUENT] == [1, 1, 1]
    names = ["Qx Zv 麦穗", "Qx", "Dune Coffee Roasters"]
    tokenizer = scratch_tokenizer(FREQUENT * 20, VOCABULARY, names)
    assert [len(tokenizer.encode(name).ids) for name in names] == [1, 1, 1]
    whole = tokenizer.encode("Qx Dune Coffee")
    assert [tokenizer.decode([i]) for i in whole.ids] == ["Qx", " ", "Dune Coffee"]
    assert tokenizer.decode(whole.ids) == "Qx Dune Coffee"
