"""A conventional retriever over items: two towers without training, an exact FAISS index.

An item's tower is its vector (`item_vectors`) and its popularity; a user's tower is the mean of the
vectors of the items in their history, recent ones counting more. Items that the user acted on
before get a bonus on top. It can be asked for the items of some advertisers only: that is the
targeting filter that a forecast becomes.
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

_FIRST_LOOK: Final = 8
"""Under a limit per advertiser, so many times the items wanted are looked at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieverSettings:
    """What was chosen on validation users.

    Attributes:
        sizes: Columns of each block of `item_vectors.BLOCKS`.
        weights: Of each block's cosine in the score.
        popularity: Weight of an item's log-count, as a share of the largest.
        advertiser_popularity: The same of its advertiser.
        repeated: Weight of the log of 1 + the user's own faded count of the item.
        half_life_days: How fast events fade.
        per_advertiser: At most so many items of one advertiser in a list; None for any number.
    """

    sizes: tuple[int, int, int, int] = (256, 64, 64, 128)
    weights: tuple[float, float, float, float] = (1.0, 0.5, 0.6, 1.0)
    popularity: float = 0.6
    advertiser_popularity: float = 0.0
    repeated: float = 4.0
    half_life_days: float = 730.0
    per_advertiser: int | None = 5


class Retriever:
    """See the module.

    Args:
        corpus: The items.
        vectors: Of items and events.
        settings: The weights.
    """

    def __init__(
        self, corpus: ItemCorpus, vectors: ItemVectors, settings: RetrieverSettings
    ) -> None:
        self.corpus, self.places = corpus, corpus.places()
        self._vectors, self._settings = vectors, settings
        by_advertiser = np.bincount(corpus.advertisers, corpus.counts)[corpus.advertisers]
        popularity = np.stack([_log_share(corpus.counts), _log_share(by_advertiser)], axis=1)
        self._items = np.ascontiguousarray(
            np.concatenate([vectors.of_corpus(corpus), popularity], axis=1), dtype=np.float32
        )
        self._index = faiss.IndexFlatIP(self._items.shape[1])
        self._index.add(self._items)

    def limited(self, per_advertiser: int | None) -> Retriever:
        """Return the same retriever with another limit per advertiser."""
        other = copy.copy(self)
        other._settings = replace(self._settings, per_advertiser=per_advertiser)
        return other

    def queries(self, study: Study, cases: Sequence[EncodedCase]) -> list[Query]:
        """Return the users' towers on the cases' days, from strictly earlier days."""
        found: list[Query] = []
        user_id, events, places = "", np.zeros((0, 0), dtype=np.float32), np.zeros(0, np.int32)
        for case in cases:
            if case.user.user_id != user_id:
                user_id = case.user.user_id
                history = study.histories[user_id]
                events = self._vectors.of_events(case.user, history)
                places = self._vectors.places_of(history)
            ages = case.day - case.user.days[: case.stop]
            fading = (0.5 ** (ages / self._settings.half_life_days)).astype(np.float32)
            found.append(
                Query(
                    vector=self._tower(fading @ events[: case.stop]),
                    bonus=self._bonus(places[: case.stop], fading),
                )
            )
        return found

    def retrieve(self, queries: Sequence[Query], count: int) -> list[list[RetrievedItem]]:
        """Return the best ``count`` items of the whole corpus for each query, best first.

        Fewer are returned only where the advertisers' limit leaves fewer.
        """
        everything = len(self.corpus.ids)
        depth = count if self._settings.per_advertiser is None else _FIRST_LOOK * count
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
            depth *= _FIRST_LOOK
        return lists

    def retrieve_filtered(
        self, query: Query, advertisers: npt.NDArray[np.integer[Any]], count: int
    ) -> list[RetrievedItem]:
        """Return the best ``count`` items of some advertisers, best first.

        Args:
            query: Whose.
            advertisers: Rows of the catalogue: the targeting filter.
            count: Fewer are returned where they have fewer.
        """
        places = np.flatnonzero(np.isin(self.corpus.advertisers, advertisers))
        return self._ranked(query, places, len(places), allowed=places)[:count]

    def _tower(self, mean: Float32Array) -> Float32Array:
        """Scale each block to its weight; the popularity's weights come last."""
        ends = np.cumsum(self._vectors.widths)[:-1]
        parts = [
            weight * block / max(float(np.linalg.norm(block)), 1e-9)
            for weight, block in zip(self._settings.weights, np.split(mean, ends), strict=True)
        ]
        parts.append(np.array([self._settings.popularity, self._settings.advertiser_popularity]))
        tower: Float32Array = np.concatenate(parts).astype(np.float32)
        return tower

    def _bonus(self, places: Int32Array, fading: Float32Array) -> dict[int, float]:
        known = places >= 0
        own, which = np.unique(places[known], return_inverse=True)
        counts = np.bincount(which, fading[known], minlength=len(own))
        values = self._settings.repeated * np.log1p(counts)
        return dict(zip(own.tolist(), values.tolist(), strict=True))

    def _ranked(
        self,
        query: Query,
        places: npt.NDArray[np.int64],
        depth: int,
        allowed: npt.NDArray[np.int64] | None = None,
    ) -> list[RetrievedItem]:
        """Rank the best items without their bonus together with the user's own, which have one.

        The first ``depth`` are right: whatever is in neither is beaten by all of ``places``.
        """
        own = np.array(list(query.bonus), dtype=np.int64)
        if allowed is not None:
            own = np.intersect1d(own, allowed)
        pool = np.union1d(places, own)
        bonus = np.array([query.bonus.get(place, 0.0) for place in pool.tolist()])
        scores = self._items[pool] @ query.vector + bonus
        order = np.argsort(-scores, kind="stable")[:depth]
        advertisers = self.corpus.advertisers[pool[order]]
        if self._settings.per_advertiser is not None:
            few = _occurrence(advertisers) < self._settings.per_advertiser
            order, advertisers = order[few], advertisers[few]
        columns = (pool[order].tolist(), advertisers.tolist(), scores[order].tolist())
        return [
            RetrievedItem(item_id=item, advertiser_id=advertiser, score=score)
            for item, advertiser, score in zip(*columns, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """A user's tower, float32 [columns], and the bonus of their own items, by corpus place."""

    vector: Float32Array
    bonus: dict[int, float]


def fit_retriever(study: Study, settings: RetrieverSettings | None = None) -> Retriever:
    """Learn a retriever from the training users' events before the cut.

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
    """Return how often each value stands before its place: int64, of the same shape."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return found
