"""The baselines of the report and the grids of their settings: a new baseline is added here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

from adprior_bench.quality.baselines.base import Baseline, Training, blend
from adprior_bench.quality.baselines.boosted import Boosted, Examples
from adprior_bench.quality.baselines.category_popularity import CategoryPopularity
from adprior_bench.quality.baselines.choices import Chosen, Family
from adprior_bench.quality.baselines.neighbours import ItemNeighbours, UserNeighbours
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity, SegmentPopularity
from adprior_bench.quality.baselines.sequential import Sequential
from adprior_bench.quality.baselines.text_embedding import TextEmbedding
from adprior_bench.quality.histories import EncodedCase, Float64Array

OWN: Final = "own_history"
POPULARITY: Final = "popularity"
USER_KNN: Final = "user_knn"
LIGHTGBM: Final = "lightgbm"
CATEGORY: Final = "category_popularity"
TEXT: Final = "text_embedding"
SASREC: Final = "sasrec"
_SEGMENT: Final = "segment_popularity"
_HALF_LIVES: Final = (None, 90, 180, 365, 730)
_FILL: Final = 1e-6
"""Share of popularity that ranks the advertisers that a forecast has no information on."""


def baseline_families(training: Training, *, threads: int, quick: bool = False) -> list[Family]:
    """Return all baselines, each after the baselines that it uses.

    With ``quick``, each has only its first setting, and models are small.
    """

    def popular(chosen: Chosen) -> Float64Array:
        return Popularity(training, **chosen[POPULARITY].best.settings).shares

    def filled(chosen: Chosen, baseline: Baseline) -> Baseline:
        return _Blend(first=baseline, second=baseline, share=0.0, popularity=popular(chosen))

    def blended(chosen: Chosen, other: str, share: float) -> Baseline:
        first, second = chosen[OWN].baseline, chosen[other].baseline
        return _Blend(first=first, second=second, share=share, popularity=popular(chosen))

    @cache
    def examples(segment: str | None, *, new_only: bool) -> Examples:
        return Examples.draw(training, segment=segment, new_only=new_only)

    def boosted(chosen: Chosen, *, new_only: bool = False, **settings: Any) -> Baseline:
        learnt = examples(segment_key(chosen), new_only=new_only)
        settings |= {"num_threads": threads}
        return filled(chosen, Boosted(training, learnt, settings=settings))

    has_names, has_categories = bool(training.names), any(training.advertiser_categories)
    keys = sorted({key for user in training.users for key in user.profile})
    blend_grid = _grid(share=(0.1, 0.3, 0.5, 0.7))
    families = [
        Family(
            name=POPULARITY,
            grid=_grid(half_life_days=_HALF_LIVES),
            make=lambda _, **settings: Popularity(training, **settings),
        ),
        Family(
            name=_SEGMENT,
            grid=_grid(key=keys, strength=(300.0, 3000.0), half_life_days=(365,)),
            make=lambda _, **settings: SegmentPopularity(training, **settings),
        ),
        Family(
            name=OWN,
            grid=_grid(half_life_days=_HALF_LIVES, share=(0.1, 0.3)),
            make=lambda chosen, **settings: OwnHistory(training, popular(chosen), **settings),
        ),
        Family(
            name="own_recency",
            grid=_grid(half_life_days=(365,), share=(0.1, 0.3), last_only=(True,)),
            make=lambda chosen, **settings: OwnHistory(training, popular(chosen), **settings),
        ),
        Family(
            name=USER_KNN,
            grid=_grid(neighbours=(50, 200, 800), power=(1, 3)),
            make=lambda chosen, **kw: filled(chosen, UserNeighbours(training, **kw)),
        ),
        Family(
            name="own_history_and_user_knn",
            grid=blend_grid,
            make=lambda chosen, share: blended(chosen, USER_KNN, share),
        ),
        Family(
            name="item_knn",
            grid=_grid(half_life_days=(90, 365), shrinkage=(3, 30)),
            make=lambda chosen, **kw: filled(chosen, ItemNeighbours(training, **kw)),
        ),
        Family(
            name="own_history_and_item_knn",
            grid=blend_grid,
            make=lambda chosen, share: blended(chosen, "item_knn", share),
        ),
        Family(
            name=CATEGORY,
            grid=_grid(half_life_days=(90, 365), prior=(0.5, 20.0)) if has_categories else (),
            make=lambda chosen, **kw: filled(chosen, CategoryPopularity(training, **kw)),
        ),
        Family(
            name=TEXT,
            grid=_grid(half_life_days=(90, 365), with_category=(True, False)) if has_names else (),
            make=lambda chosen, **kw: filled(chosen, TextEmbedding(training, **kw)),
        ),
        Family(name=LIGHTGBM, grid=_lightgbm_grid(quick), make=boosted),
        Family(
            name=SASREC,
            grid=_sasrec_grid(quick),
            make=lambda _, **settings: Sequential(training, **settings),
        ),
    ]
    used = slice(1 if quick else None)
    return [
        Family(name=family.name, grid=family.grid[used], make=family.make)
        for family in families
        if family.grid  # no segment without profiles, no text without names
    ]


def segment_key(chosen: Chosen) -> str | None:
    """Return the profile key of the best popularity by segment; None without profiles."""
    return chosen[_SEGMENT].best.settings["key"] if _SEGMENT in chosen else None


def _lightgbm_grid(quick: bool) -> Sequence[Mapping[str, Any]]:
    if quick:
        return _grid(num_leaves=(7,), num_iterations=(20,), learning_rate=(0.05,),
                     min_data_in_leaf=(1,))  # fmt: skip
    fixed = {"learning_rate": (0.05,), "min_data_in_leaf": (100,)}
    return [
        *_grid(num_leaves=(15, 31), num_iterations=(150, 400), **fixed),
        *_grid(num_leaves=(15,), num_iterations=(150, 400), new_only=(True,), **fixed),
    ]


def _sasrec_grid(quick: bool) -> Sequence[Mapping[str, Any]]:
    if quick:
        return _grid(width=(8,), dropout=(0.3,), epochs=(2,))
    return _grid(width=(64,), dropout=(0.3, 0.5), epochs=(20,))


def _grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return every combination; the last setting varies fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blend:
    """A mixture of two forecasts, with a little popularity for unknown advertisers."""

    first: Baseline
    second: Baseline
    share: float
    popularity: Float64Array

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        mixed = blend(self.first.probabilities(case), self.second.probabilities(case), self.share)
        return blend(mixed, self.popularity, _FILL)
