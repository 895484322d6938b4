"""``adprior inspect``: say what is in an event log, and propose how to train on it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from adprior_build.data.column_map import ColumnMap
from adprior_build.inspection.inspection import Inspection
from adprior_build.inspection.report import format_report
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior inspect --events events.csv --profiles profiles.csv --output columns.toml
  adprior inspect --events events.parquet --columns columns.toml --json

The log is read as adprior train reads it. The last lines are the next commands. Nothing is written
but the column map, and that only with --output."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--events", type=Path, required=True, help="event log (Parquet or CSV), with any columns"
    )
    parser.add_argument("--profiles", type=Path, help="user profiles (Parquet or CSV)")
    parser.add_argument("--columns", type=Path, help="column map (TOML) to use (one is proposed)")
    parser.add_argument(
        "--output", type=Path, help="file for the proposed column map (it is only shown)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print what is in the log; return the exit code."""
    if args.output is not None and args.columns is not None:
        raise InvalidInputError("--output is for a proposed column map; leave out --columns")
    if args.output is not None and args.output.exists() and not args.overwrite:
        raise InvalidInputError(
            f"{args.output}: exists; give --overwrite to replace it, or use it: --columns"
        )
    columns = None if args.columns is None else ColumnMap.load(args.columns)
    found = Inspection.of(args.events, args.profiles, columns, args.columns or args.output)
    if args.output is not None and found.proposal is not None and found.refused is None:
        with replace_file(args.output) as fresh:
            fresh.write_text(found.proposal.to_toml(), encoding="utf-8")
        print(f"adprior inspect: wrote {args.output}", file=sys.stderr)
    if args.json:
        print(to_json(found.to_json(), ensure_ascii=False, indent=2))
    else:
        print(format_report(found))
    if found.refused is not None:
        raise InvalidInputError(found.refused)
    return 0
