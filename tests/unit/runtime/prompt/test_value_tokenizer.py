from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
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

from adprior_build.training.scratch_tokenizer import scratch_tokenizer
from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.context import Event, UserContext, parse_time
from adprior_runtime.prompt.renderer import PromptRenderer, ValueTokenizer
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.text.normalisation import normalise_text

BOS, EOS, UNKNOWN, BRAND, WORDS = "<bos>", "<eos>", "<unk>", "Acme", "new in"
SPECIAL = [UNKNOWN, BOS, EOS]
TEXTS = ["Acme Pets", "dog food", "new in town", "bos eos unk", "a b c d e f g < > /", BOS, EOS]
ALPHABET = sorted(set("".join(TEXTS)))


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
    tokenizer.train_from_iterator([*TEXTS, *[BRAND] * 9], trainer)
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


def _scratch() -> Tokenizer:
    return scratch_tokenizer(TEXTS, 300, ["Acme Pets"])


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level BPE": _byte_level,
    "BPE, whole words first": _whole_words_first,
    "Unigram with Metaspace": _metaspace,
    "WordLevel": _words,
    "WordPiece": _word_pieces,
    "from scratch": _scratch,
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
