"""Categories: the frequent ones, and each advertiser's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from adprior_bench.quality.histories import EncodedUser
from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.event_log import UserHistory

_MIN_EVENTS_OF_CATEGORY: Final = 20


def frequent_categories(users: Sequence[UserHistory]) -> list[str]:
    """Return the categories of many training events, the most frequent first."""
    counts = Counter(event.category for user in users for event in user.events if event.category)
    return [name for name, count in counts.most_common() if count >= _MIN_EVENTS_OF_CATEGORY]


def advertiser_categories(
    catalogue: Catalogue, users: Sequence[EncodedUser], categories: Sequence[str]
) -> list[str | None]:
    """Return the catalogue's ``category`` of each advertiser, or that of most training events."""
    if "category" in catalogue.table.column_names:
        return [str(name) if name else None for name in catalogue.table["category"].to_pylist()]
    counts = [Counter[int]() for _ in catalogue.ids]
    for user in users:
        for row, category in zip(user.rows.tolist(), user.categories.tolist(), strict=True):
            if row >= 0 and category >= 0:
                counts[row][category] += 1
    return [categories[found.most_common(1)[0][0]] if found else None for found in counts]
