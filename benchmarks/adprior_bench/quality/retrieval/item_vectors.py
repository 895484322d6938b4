"""Item vectors of the conventional retriever, learnt from training users.

A vector is a concatenation of blocks, each of unit length or all 0 if nothing is known, so that an
inner product is a sum of cosines:

* the item's advertiser and its category (truncated SVDs of users x advertisers and users x
  categories, log-counts weighted by rarity);
* the item itself, in the same way, if at least two users acted on it;
* its text, if the log has texts (latent semantic analysis: TF-IDF and a truncated SVD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from adprior_bench.quality.histories import NONE, EncodedUser, Int32Array
from adprior_bench.quality.study import Study
from adprior_build.data.event_log import UserHistory
from adprior_runtime.errors import InvalidInputError

Float32Array: TypeAlias = npt.NDArray[np.float32]
BLOCKS: Final = ("advertiser", "category", "item", "text")

_SEED: Final = 11
_MIN_USERS_OF_ITEM: Final = 2
_MIN_ITEMS_OF_WORD: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemCorpus:
    """The items that training users acted on before the cut, of the catalogue's advertisers only.

    Attributes:
        ids: Item ids of the log, sorted.
        advertisers: int32 [items], rows of the catalogue.
        categories: int32 [items], `NONE` without one.
        texts: Empty strings without a text.
        counts: int32 [items], numbers of training events.
    """

    ids: Sequence[str]
    advertisers: Int32Array
    categories: Int32Array
    texts: Sequence[str]
    counts: Int32Array

    @classmethod
    def learn(cls, study: Study) -> ItemCorpus:
        """Collect the corpus; an item's attributes are those of its latest event.

        Raises:
            InvalidInputError: No training event has both an item and an advertiser.
        """
        latest: dict[str, tuple[int, int, int, str]] = {}
        counts: dict[str, int] = {}
        for user, history in zip(study.training.users, study.learnt, strict=True):
            for place in np.flatnonzero(user.rows >= 0).tolist():
                if not (item := history.items[place]):
                    continue
                counts[item] = counts.get(item, 0) + 1
                day = int(user.days[place])
                if item not in latest or day > latest[item][0]:
                    text = history.events[place].text or ""
                    latest[item] = (
                        day, int(user.rows[place]), int(user.categories[place]), text,
                    )  # fmt: skip
        if not latest:
            raise InvalidInputError(
                "no training event has both an item and an advertiser of the catalogue: "
                "does the column map name the column `item`?"
            )
        ids = sorted(latest)
        return cls(
            ids=ids,
            advertisers=np.array([latest[item][1] for item in ids], dtype=np.int32),
            categories=np.array([latest[item][2] for item in ids], dtype=np.int32),
            texts=[latest[item][3] for item in ids],
            counts=np.array([counts[item] for item in ids], dtype=np.int32),
        )

    def places(self) -> dict[str, int]:
        """Return each item's place by its id."""
        return {item: place for place, item in enumerate(self.ids)}


class ItemVectors:
    """The vectors of items and events.

    Args:
        study: Has the training users.
        corpus: The items.
        sizes: Columns of each of `BLOCKS`, fewer if the data have a lower rank; 0 omits a block.
    """

    def __init__(self, study: Study, corpus: ItemCorpus, sizes: Sequence[int]) -> None:
        size = dict(zip(BLOCKS, sizes, strict=True))
        training = study.training
        places = corpus.places()
        items = [_places_of(history, places) for history in study.learnt]
        self._places = places
        self._tables = {
            "advertiser": _embedded(
                [user.rows for user in training.users],
                training.advertisers, size["advertiser"], min_users=1,
            ),
            "category": _embedded(
                [user.categories for user in training.users],
                training.categories, size["category"], min_users=1,
            ),
            "item": _embedded(items, len(corpus.ids), size["item"], min_users=_MIN_USERS_OF_ITEM),
        }  # fmt: skip
        self._text = TextBlock(corpus.texts, size["text"])

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of columns of each of `BLOCKS`."""
        return (*(table.shape[1] for table in self._tables.values()), self._text.width)

    def of_corpus(self, corpus: ItemCorpus) -> Float32Array:
        """Return the items' vectors: float32 [items, sum of `widths`]."""
        everything = np.arange(len(corpus.ids), dtype=np.int32)
        return self._joined(corpus.advertisers, corpus.categories, everything, corpus.texts)

    def of_events(self, user: EncodedUser, history: UserHistory) -> Float32Array:
        """Return the vectors of a user's events: float32 [events, columns]."""
        texts = [event.text or "" for event in history.events]
        return self._joined(user.rows, user.categories, self.places_of(history), texts)

    def places_of(self, history: UserHistory) -> Int32Array:
        """Return the corpus place of each event's item: int32 [events], `NONE` without one."""
        return _places_of(history, self._places)

    def _joined(
        self,
        advertisers: Int32Array,
        categories: Int32Array,
        items: Int32Array,
        texts: Sequence[str],
    ) -> Float32Array:
        chosen = zip(self._tables.values(), (advertisers, categories, items), strict=True)
        blocks = [_looked_up(table, rows) for table, rows in chosen]
        return np.concatenate([*blocks, self._text.of(texts)], axis=1)


class TextBlock:
    """Latent semantic analysis of texts; empty if they have at most one frequent word."""

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self._words = TfidfVectorizer(
            min_df=_MIN_ITEMS_OF_WORD, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32
        )
        self._svd: TruncatedSVD | None = None
        if size == 0 or not any(texts):
            return
        try:
            table = self._words.fit_transform(texts)
        except ValueError:  # no word is in enough texts
            return
        self._svd = _fitted_svd(table, size)

    @property
    def width(self) -> int:
        """The number of columns."""
        return 0 if self._svd is None else len(self._svd.components_)

    def of(self, texts: Sequence[str]) -> Float32Array:
        """Return float32 [texts, width], rows of unit length, or all 0 without a known word."""
        if self._svd is None or len(texts) == 0:
            return np.zeros((len(texts), self.width), dtype=np.float32)
        return unit_rows(self._svd.transform(self._words.transform(texts)))


def unit_rows(table: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Return rows scaled to unit length, rows of 0 unchanged: float32, same shape."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    scaled: Float32Array = (table / np.maximum(lengths, 1e-9)).astype(np.float32)
    return scaled


def _places_of(history: UserHistory, places: dict[str, int]) -> Int32Array:
    return np.array([places.get(item, NONE) for item in history.items], dtype=np.int32)


def _embedded(
    entities: Sequence[Int32Array], count: int, size: int, min_users: int
) -> Float32Array:
    """Embed advertisers, categories or items by their users: float32 [count, at most size]."""
    owners = np.repeat(np.arange(len(entities)), [len(rows) for rows in entities])
    rows = np.concatenate(entities)
    known = rows >= 0
    table = sp.csr_matrix(
        (np.ones(int(known.sum())), (owners[known], rows[known])), shape=(len(entities), count)
    )
    users_of = np.bincount(table.indices, minlength=count)
    table.data = np.log1p(table.data)
    rarity = np.log((1 + len(entities)) / (1 + users_of)) * (users_of >= min_users)
    svd = _fitted_svd((table @ sp.diags(rarity)).tocsr(), size)
    if svd is None:
        return np.zeros((count, 0), dtype=np.float32)
    return unit_rows(svd.components_.T * np.sqrt(svd.singular_values_))


def _fitted_svd(table: sp.csr_matrix, size: int) -> TruncatedSVD | None:
    """Return an SVD with at most ``size`` columns; None if there is nothing to decompose."""
    size = min(size, min(table.shape) - 1)
    if size < 1 or table.count_nonzero() == 0:
        return None
    return TruncatedSVD(size, random_state=_SEED).fit(table)


def _looked_up(table: Float32Array, rows: Int32Array) -> Float32Array:
    found: Float32Array = np.where(rows[:, None] >= 0, table[np.maximum(rows, 0)], np.float32(0))
    return found
