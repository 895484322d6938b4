"""``adprior predict``: forecast one user's advertisers."""

from __future__ import annotations

import argparse
from typing import Final

from adprior_client.cli.connection_options import (
    USER_HELP,
    add_connection_arguments,
    read_connection,
)
from adprior_client.cli.context_use import print_context_use
from adprior_client.cli.documents import read_user
from adprior_client.cli.usual_time import explain_deadline
from adprior_client.results import Forecast
from adprior_client.retrieval import RetrievalClient
from adprior_runtime.contract import ADVERTISER_RETRIEVAL
from adprior_runtime.terminal.tables import Column, format_bar, format_percent, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = "example:\n  adprior predict --url localhost:8001 --user user.json -k 5"
_SHOWN_FROM: Final = 0.1
_COLUMNS: Final[tuple[Column, ...]] = (
    ("rank", "right"),
    ("advertiser", "left"),
    ("id", "right"),
    ("probability", "right"),
    ("", "left"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    add_connection_arguments(parser)
    parser.add_argument("--user", required=True, metavar="FILE", help=USER_HELP)
    parser.add_argument("-k", type=int, help="number of advertisers (default: the bundle's)")
    parser.add_argument(
        "--interests", type=int, metavar="N", help="also show N interests, if the bundle has them"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the forecast, and return the exit code."""
    user = read_user(args.user)
    config = read_connection(args)
    with explain_deadline(config, ADVERTISER_RETRIEVAL), RetrievalClient(config) as client:
        forecast = client.forecast(user, args.k, interest_k=args.interests)
    if args.json:
        print(to_json(forecast.to_json(), ensure_ascii=False, indent=2))
    else:
        print(_table(forecast))
        if args.interests is not None:
            print(f"\n{_interest_table(forecast)}")
    print_context_use("predict", config, user, as_json=args.json)
    return 0


def _interest_table(forecast: Forecast) -> str:
    if not forecast.interests:
        return "Interests: the bundle has none."
    columns: tuple[Column, ...] = (("interest", "left"), ("id", "right"), ("probability", "right"))
    rows = [
        (item.name, str(item.interest_id), format_percent(item.probability))
        for item in forecast.interests
    ]
    return format_table(columns, rows)


def _table(forecast: Forecast) -> str:
    most = max((item.probability for item in forecast.advertisers), default=0.0)
    rows = [
        (
            str(place),
            item.name,
            str(item.advertiser_id),
            format_percent(item.probability),
            format_bar(item.probability / most if most else 0.0),
        )
        for place, item in enumerate(forecast.advertisers, start=1)
    ]
    certificate = (
        "Exact: no other advertiser of the catalogue is more probable than these."
        if forecast.exact
        else "Not certified: an advertiser not shown may be more probable than the last of these."
    )
    rest = f"Advertisers not shown: at most {format_percent(forecast.missing_mass)} together."
    shown = sum(item.probability for item in forecast.advertisers)
    if (outside := 1.0 - shown - forecast.missing_mass) >= _SHOWN_FROM:
        rest += f"\nOutside the catalogue: at least {format_percent(outside)}."
    return f"{format_table(_COLUMNS, rows)}\n\n{certificate}\n{rest}\nBundle: {forecast.bundle_id}"
