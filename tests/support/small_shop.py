"""A minimal shop: users with one favourite advertiser each, items with texts, and its study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet

from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.split import Split

CUT = date(2024, 3, 1)
NAMES = ("Acme", "Birch", "Corva", "Dune")
KINDS = ("PET FOOD", "SHIRT", "COFFEE", "LAMP")
ITEMS_EACH = 5
SPLITS = Splits(
    cut=CUT,
    test=Split(cut=CUT, test_share=0.2),
    validation=Split(test_share=0.3, salt="validation"),
)

Row: TypeAlias = dict[str, Any]
Change: TypeAlias = Callable[[Row], Row | None]


def shop_events(users: int = 60) -> list[Row]:
    """Return eight purchases per user: two after the cut, most from the favourite advertiser.

    Item ``i2-3`` is the third item of the advertiser in row 2. The last item was bought by nobody
    else; the item before it repeats the user's first.
    """
    return [_purchase(user, step) for user in range(users) for step in range(8)]


def read_shop(directory: Path, change: Change | None = None) -> Study:
    """Read the shop as a study; ``change`` may change each event, or drop it by returning None."""
    events = shop_events()
    if change is not None:
        events = [row for row in map(change, events) if row is not None]
    _write(directory / "events.parquet", events)
    _write(
        directory / "catalogue.parquet",
        [{"advertiser_id": 7 + row, "name": name} for row, name in enumerate(NAMES)],
    )
    columns = ColumnMap(
        events=EventColumns(
            user="who", time="day", advertiser="brand", category="kind", text="title", item="item"
        )
    )
    catalogue = read_catalogue(directory / "catalogue.parquet")
    return Study.read(SPLITS, catalogue, directory / "events.parquet", None, columns)


def _purchase(user: int, step: int) -> Row:
    favourite = user % len(NAMES)
    advertiser = (favourite + (step == 3)) % len(NAMES)
    place = 0 if step == 6 else (user // len(NAMES) + step) % ITEMS_EACH
    if step == 0:
        place = 0
    item = f"i{advertiser}-{place}" if step < 7 else f"only-{user}"
    day = CUT + timedelta(days=7 * (step - 6) + user % 3)
    return {
        "who": f"user-{user}",
        "day": day if step >= 6 else min(day, CUT - timedelta(days=1 + (6 - step))),
        "brand": NAMES[advertiser],
        "kind": KINDS[advertiser],
        "title": f"{NAMES[advertiser]} {KINDS[advertiser].lower()} number {place}",
        "item": item,
    }


def _write(path: Path, rows: Sequence[Row]) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
