"""``adprior catalogue``: list the advertisers of an event log, where no catalogue is at hand."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import pyarrow.csv

from adprior_build.atomic import replace_file
from adprior_build.catalogue import derive_catalogue
from adprior_build.event_log import ColumnMap, Split, read_users

__all__ = ["EXAMPLE", "add_arguments", "run"]

EXAMPLE = """example:
  adprior catalogue --events events.parquet --columns columns.toml --min-users 3 \\
    --cut 2022-07-01 --test-share 0.2 --output catalogue.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--events", type=Path, required=True, help="event log (Parquet or CSV)")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    parser.add_argument("--output", type=Path, required=True, help="catalogue to write (CSV)")
    parser.add_argument("--min-users", type=int, default=3, help="training users an advertiser has")
    parser.add_argument("--cut", type=date.fromisoformat, help="count events before this day")
    parser.add_argument("--test-share", type=float, default=0.0, help="users not counted")


def run(args: argparse.Namespace) -> int:
    """Write the catalogue; return the exit code."""
    users = read_users(args.events, None, ColumnMap.load(args.columns))
    split = Split(cut=args.cut, test_share=args.test_share)
    table = derive_catalogue(split.training_part(users), args.min_users)
    with replace_file(args.output) as fresh:
        pyarrow.csv.write_csv(table, fresh)
    print(f"adprior catalogue: {table.num_rows} advertisers in {args.output}")
    return 0
