from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from adprior_bench.quality.histories import NONE
from adprior_bench.quality.retrieval.item_vectors import (
    ItemCorpus,
    ItemVectors,
    TextBlock,
    unit_rows,
)
from adprior_bench.quality.study import Study
from adprior_runtime.errors import InvalidInputError
from support.small_shop import CUT, ITEMS_EACH, NAMES, SPLITS, Row, read_shop

SIZES = (3, 3, 4, 5)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def corpus(study: Study) -> ItemCorpus:
    return ItemCorpus.learn(study)


def test_the_corpus_is_what_training_users_bought(study: Study, corpus: ItemCorpus) -> None:
    assert corpus.ids == [f"i{a}-{p}" for a in range(len(NAMES)) for p in range(ITEMS_EACH)]
    assert corpus.advertisers.tolist() == [int(item[1]) for item in corpus.ids]
    bought = [item for user in study.learnt for item in user.items]
    assert corpus.counts.tolist() == [bought.count(item) for item in corpus.ids]
    assert corpus.texts[6] == "Birch shirt number 1"
    assert {study.categories[row] for row in corpus.categories[:ITEMS_EACH]} == {"PET FOOD"}


def test_nothing_of_test_and_validation_users_or_after_the_cut_is_learnt(
    study: Study, corpus: ItemCorpus, tmp_path: Path
) -> None:
    def spoilt(row: Row) -> Row:
        """Everything that must not be learnt from becomes something else."""
        unseen = SPLITS.group_of(row["who"]) != "training" or row["day"] >= CUT
        return row | ({"item": "secret", "title": "secret", "kind": "SECRET"} if unseen else {})

    other_study = read_shop(tmp_path, spoilt)
    other = ItemCorpus.learn(other_study)
    assert other.ids == corpus.ids
    assert other.counts.tolist() == corpus.counts.tolist()
    expected = ItemVectors(study, corpus, SIZES).of_corpus(corpus)
    found = ItemVectors(other_study, other, SIZES).of_corpus(other)
    np.testing.assert_array_equal(found, expected)


def test_items_without_an_advertiser_of_the_catalogue_are_not_in_the_corpus(
    tmp_path: Path,
) -> None:
    def rename(row: Row) -> Row:
        if row["item"] == "i0-1":
            return row | {"brand": None}
        return row | {"brand": "Elsewhere"} if row["item"] == "i0-2" else row

    corpus = ItemCorpus.learn(read_shop(tmp_path, rename))
    assert {"i0-1", "i0-2"}.isdisjoint(corpus.ids)
    assert "i0-3" in corpus.ids


def test_a_log_without_items_is_refused(tmp_path: Path) -> None:
    study = read_shop(tmp_path, lambda row: row | {"item": None})
    with pytest.raises(InvalidInputError, match="no training event has both an item and"):
        ItemCorpus.learn(study)


def test_blocks_are_of_unit_length_or_nothing(study: Study, corpus: ItemCorpus) -> None:
    vectors = ItemVectors(study, corpus, SIZES)
    user = study.validation[0].user
    events = vectors.of_events(user, study.histories[user.user_id])
    assert events.shape == (len(user.rows), sum(vectors.widths))
    for block in np.split(events, np.cumsum(vectors.widths)[:-1], axis=1):
        lengths = np.linalg.norm(block, axis=1)
        assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))
    items = vectors.places_of(study.histories[user.user_id])
    assert items[-1] == NONE  # no other user bought it
    assert corpus.ids[items[0]] == study.histories[user.user_id].items[0]


def test_items_of_one_advertiser_are_nearer_than_others(study: Study, corpus: ItemCorpus) -> None:
    table = ItemVectors(study, corpus, SIZES).of_corpus(corpus)
    similarity = table @ table.T
    same = corpus.advertisers[:, None] == corpus.advertisers
    assert similarity[same].min() > similarity[~same].mean()


def test_a_block_of_size_0_is_left_out(study: Study, corpus: ItemCorpus) -> None:
    vectors = ItemVectors(study, corpus, (3, 0, 0, 0))
    assert vectors.widths == (3, 0, 0, 0)
    assert vectors.of_corpus(corpus).shape == (len(corpus.ids), 3)


def test_texts_are_embedded_as_sklearn_does() -> None:
    texts = ["red lamp", "red shirt", "red lamp big", "blue shirt", "blue lamp", "blue shirt big"]
    words = TfidfVectorizer(min_df=3, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    table = words.fit_transform(texts)
    svd = TruncatedSVD(2, random_state=11).fit(table)
    block = TextBlock(texts, 2)
    expected = unit_rows(svd.transform(words.transform(["a red shirt", "unknown"])))
    np.testing.assert_allclose(block.of(["a red shirt", "unknown"]), expected, atol=1e-6)
    assert not expected[1].any()


@pytest.mark.parametrize("texts", [[], ["", ""], ["each", "word", "once"], ["a", "a", "a"]])
def test_texts_that_tell_nothing_make_no_block(texts: list[str]) -> None:
    block = TextBlock(texts, 8)
    assert block.width == 0
    assert block.of(["red lamp"]).shape == (1, 0)
