"""A conventional retriever over items: two towers without training, with an exact FAISS index.

An item's tower is its vector (`item_vectors`) and its popularity. A user's tower is the mean of the
vectors of the items in the history, recent ones with more weight. Items that the user acted on
before get a bonus. The retriever can be restricted to the items of some advertisers: a forecast
becomes such a targeting filter.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Int32Array
from adprior_bench.quality.retrieval.item_vectors import Float32Array, ItemCorpus, ItemVectors
from adprior_bench.quality.study import Study
from adprior_client.blending import RetrievedItem

_DEPTH_FACTOR: Final = 8
"""The first search is this many times deeper than the list, if advertisers have a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieverSettings:
    """Settings, to be chosen on validation users.

    Attributes:
        sizes: Columns of each block of `item_vectors.BLOCKS`.
        weights: Weight of each block's cosine in the score.
        popularity: Weight of an item's log-count, divided by the largest one.
        advertiser_popularity: Weight of the log-count of its advertiser.
        repeated: Weight of log(1 + the user's own decayed count of the item).
        half_life_days: Half-life of events.
        per_advertiser: Limit of items of one advertiser in a list; None for no limit.
    """

    sizes: tuple[int, int, int, int] = (256, 64, 64, 128)
    weights: tuple[float, float, float, float] = (1.0, 0.5, 0.6, 1.0)
    popularity: float = 0.6
    advertiser_popularity: float = 0.0
    repeated: float = 4.0
    half_life_days: float = 730.0
    per_advertiser: int | None = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """A user's tower, float32 [columns], and the bonus of the user's own items, by corpus place."""

    vector: Float32Array
    bonus: dict[int, float]


class Retriever:
    """A retriever of the items of a corpus, with given settings."""

    def __init__(
        self, corpus: ItemCorpus, vectors: ItemVectors, settings: RetrieverSettings
    ) -> None:
        self.corpus, self.places = corpus, corpus.places()
        self._vectors, self.settings = vectors, settings
        by_advertiser = np.bincount(corpus.advertisers, corpus.counts)[corpus.advertisers]
        popularity = np.stack([_log_share(corpus.counts), _log_share(by_advertiser)], axis=1)
        self._items = np.ascontiguousarray(
            np.concatenate([vectors.of_corpus(corpus), popularity], axis=1), dtype=np.float32
        )
        self._index = faiss.IndexFlatIP(self._items.shape[1])
        self._index.add(self._items)

    def with_settings(self, settings: RetrieverSettings) -> Retriever:
        """Return a retriever with other settings, but the same ``sizes``."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def limited(self, per_advertiser: int | None) -> Retriever:
        """Return a retriever with another limit per advertiser."""
        return self.with_settings(replace(self.settings, per_advertiser=per_advertiser))

    def queries(self, study: Study, cases: Sequence[EncodedCase]) -> list[Query]:
        """Return a query for each case, from the events of strictly earlier days."""
        found: list[Query] = []
        user_id, events, places = "", np.zeros((0, 0), dtype=np.float32), np.zeros(0, np.int32)
        for case in cases:
            if case.user.user_id != user_id:
                user_id = case.user.user_id
                history = study.histories[user_id]
                events = self._vectors.of_events(case.user, history)
                places = self._vectors.places_of(history)
            ages = case.day - case.user.days[: case.stop]
            fading = (0.5 ** (ages / self.settings.half_life_days)).astype(np.float32)
            found.append(
                Query(
                    vector=self._tower(fading @ events[: case.stop]),
                    bonus=self._bonus(places[: case.stop], fading),
                )
            )
        return found

    def retrieve(self, queries: Sequence[Query], count: int) -> list[list[RetrievedItem]]:
        """Return the best ``count`` items of the corpus for each query, best first.

        A list is shorter only if the limit per advertiser leaves fewer items.
        """
        everything = len(self.corpus.ids)
        depth = count if self.settings.per_advertiser is None else _DEPTH_FACTOR * count
        lists: list[list[RetrievedItem]] = [[] for _ in queries]
        missing = list(range(len(queries)))
        while missing:
            depth = min(depth, everything)
            vectors = np.stack([queries[place].vector for place in missing])
            _, found = self._index.search(vectors, depth)
            for place, items in zip(missing, found, strict=True):
                lists[place] = self._ranked(queries[place], items, depth)[:count]
            if depth == everything:
                break
            missing = [place for place in missing if len(lists[place]) < count]
            depth *= _DEPTH_FACTOR
        return lists

    def retrieve_filtered(
        self, query: Query, advertisers: npt.NDArray[np.integer[Any]], count: int
    ) -> list[RetrievedItem]:
        """Return at most ``count`` items of some advertisers, best first.

        ``advertisers`` are rows of the catalogue.
        """
        places = np.flatnonzero(np.isin(self.corpus.advertisers, advertisers))
        return self._ranked(query, places, len(places), allowed=places)[:count]

    def _tower(self, mean: Float32Array) -> Float32Array:
        """Scale each block to its weight; the weights of popularity come last."""
        ends = np.cumsum(self._vectors.widths)[:-1]
        parts = [
            weight * block / max(float(np.linalg.norm(block)), 1e-9)
            for weight, block in zip(self.settings.weights, np.split(mean, ends), strict=True)
        ]
        parts.append(np.array([self.settings.popularity, self.settings.advertiser_popularity]))
        tower: Float32Array = np.concatenate(parts).astype(np.float32)
        return tower

    def _bonus(self, places: Int32Array, fading: Float32Array) -> dict[int, float]:
        known = places >= 0
        own, which = np.unique(places[known], return_inverse=True)
        counts = np.bincount(which, fading[known], minlength=len(own))
        values = self.settings.repeated * np.log1p(counts)
        return dict(zip(own.tolist(), values.tolist(), strict=True))

    def _ranked(
        self,
        query: Query,
        places: npt.NDArray[np.int64],
        depth: int,
        allowed: npt.NDArray[np.int64] | None = None,
    ) -> list[RetrievedItem]:
        """Rank the best items without bonus together with the user's own items, which have one.

        The first ``depth`` are correct: every other item scores below all of ``places``.
        """
        own = np.array(list(query.bonus), dtype=np.int64)
        if allowed is not None:
            own = np.intersect1d(own, allowed)
        pool = np.union1d(places, own)
        bonus = np.array([query.bonus.get(place, 0.0) for place in pool.tolist()])
        scores = self._items[pool] @ query.vector + bonus
        order = np.argsort(-scores, kind="stable")[:depth]
        advertisers = self.corpus.advertisers[pool[order]]
        if self.settings.per_advertiser is not None:
            few = _occurrence(advertisers) < self.settings.per_advertiser
            order, advertisers = order[few], advertisers[few]
        columns = (pool[order].tolist(), advertisers.tolist(), scores[order].tolist())
        return [
            RetrievedItem(item_id=item, advertiser_id=advertiser, score=score)
            for item, advertiser, score in zip(*columns, strict=True)
        ]


def fit_retriever(study: Study, settings: RetrieverSettings | None = None) -> Retriever:
    """Build a retriever from the training users' events before the cut.

    Raises:
        InvalidInputError: No training event has both an item and an advertiser.
    """
    settings = settings or RetrieverSettings()
    corpus = ItemCorpus.learn(study)
    return Retriever(corpus, ItemVectors(study, corpus, settings.sizes), settings)


def _log_share(counts: npt.NDArray[np.number[Any]]) -> Float32Array:
    logs = np.log1p(counts)
    share: Float32Array = (logs / logs.max()).astype(np.float32)
    return share


def _occurrence(values: Int32Array) -> npt.NDArray[np.int64]:
    """Return how many equal values come before each value: int64, same shape."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return found
