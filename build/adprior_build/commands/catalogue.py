"""``adprior catalogue``: derive a catalogue of advertisers or interests from an event log."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.csv

from adprior_build.catalogue.catalogue_file import (
    MIN_USERS,
    Kind,
    catalogue_of,
    derive_catalogue,
    with_newcomers,
)
from adprior_build.catalogue.log_ids import read_log_ids, with_log_ids
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import all_are_ids, read_users
from adprior_build.data.split import Split
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.prompt.template import MAX_FIELD_CHARS, PromptTemplate
from adprior_runtime.terminal.options import day, positive_integer, share

EXAMPLE = """example:
  adprior catalogue --events events.parquet --columns columns.toml --min-users 3 \\
    --cut 2022-07-01 --test-share 0.2 --output catalogue.csv
  adprior catalogue --events events.parquet --columns columns.toml --id-column brand_id \\
    --output catalogue.csv
  adprior catalogue --events events.parquet --columns columns.toml --interests \\
    --output interests.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--events",
        type=Path,
        required=True,
        help="event log (Parquet or CSV); times without a zone are UTC",
    )
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    parser.add_argument("--output", type=Path, required=True, help="catalogue to write (CSV)")
    parser.add_argument(
        "--min-users",
        type=positive_integer,
        default=MIN_USERS,
        metavar="N",
        help=f"list advertisers, or interests, that at least N users acted on ({MIN_USERS})",
    )
    parser.add_argument(
        "--interests",
        action="store_true",
        help="list interests, the column map's category, instead of advertisers",
    )
    parser.add_argument(
        "--template",
        type=Path,
        help="prompt template (JSON) that the training will use; its max_field_chars limits the "
        f"length of names ({MAX_FIELD_CHARS})",
    )
    parser.add_argument(
        "--cut", type=day, metavar="DAY", help="count events before this day (all events)"
    )
    parser.add_argument(
        "--newcomers",
        action="store_true",
        help="also list the advertisers of the whole log that no counted event names, and each "
        "advertiser's category, as an ad system knows them: nothing about who acted on them",
    )
    parser.add_argument(
        "--id-column",
        metavar="COLUMN",
        help="column of the log with each advertiser's id, a whole number, which becomes "
        "advertiser_id (ids count from 1)",
    )
    parser.add_argument(
        "--test-share",
        type=share,
        default=0.0,
        metavar="N",
        help="share of users that are left out, as in the training (0)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the catalogue; return the exit code."""
    columns = ColumnMap.load(args.columns)
    if args.interests and (args.newcomers or args.id_column is not None):
        option = "--newcomers" if args.newcomers else "--id-column"
        raise InvalidInputError(f"{option} is for advertisers; leave out --interests")
    ids = None
    if args.id_column is not None:
        ids = read_log_ids(args.events, columns.events, args.id_column)
    users = read_users(args.events, None, columns)
    split = Split(cut=args.cut, test_share=args.test_share)
    kind: Kind = "interest" if args.interests else "advertiser"
    if kind == "advertiser" and all_are_ids(users):
        raise InvalidInputError(
            f"{args.events}: the advertiser column holds ids, which mean nothing to a language "
            "model; name a column of names in the column map (--id-column keeps the ids), or give "
            "`adprior train` a catalogue with a name for each"
        )
    if kind == "interest" and not any(event.category for user in users for event in user.events):
        raise InvalidInputError(
            f"{args.events}: no event has a category; expected a category column in {args.columns}"
        )
    counted = split.training_part(users)
    table = derive_catalogue(counted, args.min_users, kind)
    if not table.num_rows:
        raise InvalidInputError(
            f"{args.events}: no {kind} has events of {args.min_users} users; lower --min-users"
        )
    if args.newcomers:
        table = with_newcomers(table, counted, users)
    if ids is not None:
        table = with_log_ids(table, ids, f"{args.events}: column {args.id_column}")
    max_chars = MAX_FIELD_CHARS
    if args.template is not None:
        max_chars = PromptTemplate.load(args.template).max_field_chars
    if note := catalogue_of(table, args.output, kind).check_lengths(max_chars):
        print(f"adprior catalogue: {note}", file=sys.stderr)
    with replace_file(args.output) as fresh:
        pyarrow.csv.write_csv(table, fresh)
    print(f"adprior catalogue: {table.num_rows} {kind}s in {args.output}")
    return 0
