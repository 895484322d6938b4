"""``adprior user``: write one user of an event log as the JSON that adprior predict reads."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, all_are_ids, name_advertisers
from adprior_build.data.one_user import find_user
from adprior_build.data.user_context import make_context
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.terminal.options import moment
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior user --events events.parquet --profiles profiles.parquet --columns columns.toml \\
    --id 4711 --as-of 2022-07-01 --output user.json
  adprior user --events events.csv --columns columns.toml --id 4711 \\
    | adprior predict --url localhost:8001 --user -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--events",
        type=Path,
        required=True,
        help="event log (Parquet or CSV); times without a zone are UTC",
    )
    parser.add_argument("--profiles", type=Path, help="user profiles (Parquet or CSV)")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    parser.add_argument("--id", required=True, metavar="USER", help="the user's id")
    parser.add_argument(
        "--as-of",
        type=moment,
        metavar="TIME",
        help="time of the forecast, UTC: only earlier events are written (end of the log)",
    )
    parser.add_argument(
        "--catalogue", type=Path, help="catalogue, for a log with ids of advertisers"
    )
    parser.add_argument("--output", type=Path, help="file to write (standard output)")


def run(args: argparse.Namespace) -> int:
    """Write the user; return the exit code."""
    columns = ColumnMap.load(args.columns)
    user, end = find_user(args.events, args.profiles, columns, args.id, say=_say)
    user = _named(user, args.catalogue, args.events)
    as_of = args.as_of or end
    before = user.before(as_of).events
    try:
        raw, context = make_context(user.profile, before, as_of)
    except InvalidRequestError as error:
        raise InvalidInputError(f"{args.events}: user {args.id!r}: {error}") from error
    text = _laid_out(raw)
    if args.output is None:
        sys.stdout.write(text)
    else:
        with replace_file(args.output) as fresh:
            fresh.write_text(text, encoding="utf-8")
    written = "" if args.output is None else f"; wrote {args.output}"
    left_out = len(before) - len(context.history)
    dropped = f", without the {left_out:,} oldest, which fit no request" if left_out else ""
    _say(
        f"{len(context.history):,} of {len(user.events):,} events, those before "
        f"{as_of.isoformat()}{dropped}, and {len(user.profile):,} profile keys{written}"
    )
    return 0


def _named(user: UserHistory, catalogue: Path | None, events: Path) -> UserHistory:
    """Return a user with advertisers' names, as a model reads them."""
    if catalogue is not None:
        known = read_catalogue(catalogue)
        return name_advertisers([user], known.ids, known.names)[0]
    if all_are_ids([user]):
        raise InvalidInputError(
            f"{events}: the advertiser column holds ids; give --catalogue, which has their names"
        )
    return user


def _laid_out(raw: bytes) -> str:
    """Return the JSON with line ends, or without if a server would refuse it for its size."""
    text = to_json(json.loads(raw), ensure_ascii=False, indent=2) + "\n"
    return text if len(text.encode()) <= MAX_CONTEXT_BYTES else raw.decode()


def _say(line: str) -> None:
    print(f"adprior user: {line}", file=sys.stderr)
