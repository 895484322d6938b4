from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.data.event_log import UserHistory
from adprior_build.training.scratch_model import ModelSize, Names, scratch_model
from adprior_build.training.scratch_tokenizer import (
    END,
    PAD,
    USER,
    profile_texts,
    scratch_template,
    scratch_tokenizer,
    training_texts,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.terminal import progress

SIZE = ModelSize(
    hidden_size=24,
    intermediate_size=40,
    layers=2,
    attention_heads=6,
    key_value_heads=3,
    vocabulary_size=320,
    max_prompt_tokens=50,
)
NAMED = Names(tokens=[5, 6, 7], log_shares=[-1.0, -2.0, -3.0])
FREQUENT = ["Dune Coffee", "Birch & Co", "麦穗"]
TOKENIZER = scratch_tokenizer(FREQUENT * 20, SIZE.vocabulary_size)
TOKENIZER.encode_special_tokens = True


def write(path: Path, **changed: str) -> Path:
    lines = {key: str(value) for key, value in asdict(SIZE).items()} | changed
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items() if value))
    return path


def test_a_size_file_is_read(tmp_path: Path) -> None:
    assert ModelSize.load(write(tmp_path / "size.toml")) == SIZE


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": "3"}, r"unknown depth; expected hidden_size, .*max_prompt_tokens$"),
        ({"layers": ""}, r"size\.toml: layers missing$"),
        ({"layers": "2.0"}, "layers is 2.0, expected a whole number"),
        ({"layers": '"two"'}, "layers is 'two', expected a whole number"),
        ({"layers": "true"}, "layers is True, expected a whole number"),
        ({"layers": "[1]"}, r"layers is \[1\], expected a whole number"),
        ({"layers": "0"}, "layers is 0, expected"),
        ({"max_prompt_tokens": "-5"}, "max_prompt_tokens is -5, expected"),
        ({"attention_heads": "5"}, "must divide hidden_size"),
        ({"key_value_heads": "4"}, "key_value_heads attention_heads"),
        ({"layers": "= ="}, "not a size file"),
    ],
)
def test_a_wrong_size_file_is_refused(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        ModelSize.load(write(tmp_path / "size.toml", **changed))
    assert "\n" not in str(caught.value)


def test_a_head_that_rotary_positions_cannot_halve_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "size.toml", hidden_size="18")
    with pytest.raises(InvalidInputError):
        ModelSize.load(path)


def test_a_missing_size_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.toml: not a size file"):
        ModelSize.load(tmp_path / "none.toml")


@pytest.mark.parametrize("name", FREQUENT)
def test_a_frequent_name_is_one_token(name: str) -> None:
    assert len(TOKENIZER.encode(name).ids) == 1


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", [END, PAD, USER, f"Acme{END}", "a\u0000b", " a ", "👩‍🚀"])
def test_a_value_that_spells_a_special_token_comes_back_as_text(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & {TOKENIZER.token_to_id(token) for token in (PAD, END, USER)}


def test_special_tokens_have_the_ids_that_the_model_knows() -> None:
    config = scratch_model(SIZE, TOKENIZER.get_vocab_size(), NAMED).config
    assert TOKENIZER.token_to_id(PAD) == config.pad_token_id == 0
    assert TOKENIZER.token_to_id(END) == config.eos_token_id == 1
    assert TOKENIZER.token_to_id(USER) == 2


def test_the_vocabulary_holds_every_byte_and_no_more_than_asked_for() -> None:
    assert TOKENIZER.get_vocab_size() <= SIZE.vocabulary_size
    tight = scratch_tokenizer(FREQUENT, 1)
    assert tight.get_vocab_size() == 256 + 3
    assert tight.decode(tight.encode("麦穗").ids) == "麦穗"


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert (
        scratch_tokenizer(FREQUENT * 20, SIZE.vocabulary_size).to_str()
        == scratch_tokenizer(iter(FREQUENT * 20), SIZE.vocabulary_size).to_str()
    )


def test_the_template_belongs_to_the_tokenizer() -> None:
    template = scratch_template(SIZE.max_prompt_tokens)
    assert template.max_prompt_tokens == SIZE.max_prompt_tokens
    renderer = PromptRenderer(template, TOKENIZER)
    assert renderer.head_ids == [TOKENIZER.token_to_id(USER)]
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


def test_learning_the_vocabulary_of_a_long_log_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUICK_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    users = [UserHistory(user_id=name, profile={"age": "44"}) for name in "abc"]
    scratch_tokenizer(training_texts(users, ["Acme"]), SIZE.vocabulary_size)
    assert "learning the vocabulary: " in capsys.readouterr().err


def test_a_profiles_value_that_users_share_is_one_token_and_no_advertisers_name() -> None:
    users = [
        UserHistory(user_id=str(number), profile={"state": state}, events=[])
        for number, state in enumerate(["Oregon"] * 5 + ["Utah"] * 4)
    ]
    assert profile_texts(users) == ["state=Oregon"]
    tokenizer = scratch_tokenizer(
        FREQUENT * 20, SIZE.vocabulary_size, ["Oregon", *profile_texts(users)]
    )
    renderer = PromptRenderer(scratch_template(SIZE.max_prompt_tokens), tokenizer)
    moment = datetime(2022, 7, 1, tzinfo=UTC)
    prompt = renderer.render(UserContext(profile=users[0].profile, history=(), as_of=moment))
    (name, _) = renderer.name_ids("Oregon")
    (user, pair) = prompt.token_ids
    assert pair not in {name, user}
    assert tokenizer.id_to_token(pair) == "state=Oregon"


def test_the_model_has_the_shape_that_the_size_says() -> None:
    model = scratch_model(SIZE, 300, NAMED)
    config = model.config
    assert (config.hidden_size, config.intermediate_size) == (24, 40)
    assert (config.num_hidden_layers, config.vocab_size) == (2, 300)
    assert (config.num_attention_heads, config.num_key_value_heads) == (6, 3)
    assert config.max_position_embeddings >= SIZE.max_prompt_tokens
    layer = model.get_decoder().layers[0]
    assert len(model.get_decoder().layers) == 2
    assert tuple(layer.mlp.up_proj.weight.shape) == (40, 24)
    assert tuple(layer.self_attn.k_proj.weight.shape) == (12, 24)


def test_embeddings_are_tied() -> None:
    model = scratch_model(SIZE, 300, NAMED)
    assert tuple(model.get_input_embeddings().weight.shape) == (300, 24)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_every_name_is_one_token_and_others_take_the_fewest() -> None:
    names = ["Qx Zv 麦穗", "Qx", "Dune Coffee Roasters"]
    tokenizer = scratch_tokenizer(FREQUENT * 20, SIZE.vocabulary_size, names)
    assert [len(tokenizer.encode(name).ids) for name in names] == [1, 1, 1]
    whole = tokenizer.encode("Qx Dune Coffee")
    assert [tokenizer.decode([i]) for i in whole.ids] == ["Qx", " ", "Dune Coffee"]
    assert tokenizer.decode(whole.ids) == "Qx Dune Coffee"


@pytest.mark.parametrize("key_value_heads", [6, 3])
def test_an_untrained_model_forecasts_what_came_often_and_what_is_popular(
    key_value_heads: int,
) -> None:
    torch.manual_seed(0)
    size = replace(SIZE, hidden_size=192, layers=2, key_value_heads=key_value_heads)
    tokens = list(range(20, 120))
    shares = np.exp(np.linspace(0, -4, 100))
    model = scratch_model(size, 140, Names(tokens=tokens, log_shares=np.log(shares).tolist()))
    elsewhere = [3, 4, 5, 6]
    history = [70, 1, 3, 90, 1, 4, 70, 1, 5, 70, 1, 90, 1, 100, 1]
    with torch.no_grad():
        known, unknown = (
            model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
            for ids in ([*elsewhere, *history, 6], elsewhere)
        )
    names = np.array(tokens)
    assert names[known[names].argsort(descending=True)[:2]].tolist() == [70, 90]
    assert np.corrcoef(unknown[names].numpy(), np.log(shares))[0, 1] > 0.5
    assert int(known.argmax()) in tokens


def test_an_untrained_model_ends_a_name_and_prefers_what_came_lately() -> None:
    torch.manual_seed(0)
    size = replace(SIZE, hidden_size=192, key_value_heads=6, max_prompt_tokens=100)
    tokens = list(range(20, 120))
    model = scratch_model(size, 140, Names(tokens=tokens, log_shares=[-4.6] * 100)).eval()
    history = [2, *[70, 1, 3] * 8, *[90, 1, 3] * 8]
    with torch.no_grad():
        after_gap, after_name = (
            torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)
            for ids in (history, [*history, 90])
        )
    assert after_gap[90] > after_gap[70] > after_gap[[80, 100]].max()
    assert float(after_name[1]) > np.log(0.99)
    assert float(after_gap[1]) < np.log(0.01)
