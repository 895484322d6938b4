"""``adprior rank``: adjust the logits of one user's candidates."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Final

from adprior_client.cli.connection_options import (
    USER_HELP,
    add_connection_arguments,
    read_connection,
)
from adprior_client.cli.context_use import print_context_use
from adprior_client.cli.documents import STANDARD_INPUT, read_candidates, read_forecast, read_user
from adprior_client.cli.usual_time import explain_deadline
from adprior_client.ranking import RankingClient
from adprior_client.results import RankedCandidate, Ranking
from adprior_runtime.contract import ADVERTISER_RANKING, PRIOR_HEAD
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.tables import Column, format_percent, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """\
examples:
  adprior rank --url localhost:8001 --user user.json --candidates candidates.json
  adprior predict --url localhost:8001 --user user.json --json |
    adprior rank --url localhost:8001 --forecast - --candidates candidates.json

candidates.json:
  [{"advertiser_id": 17, "base_logit": -2.31}, {"advertiser_id": 4, "base_logit": -2.75}]"""
_NO_HEAD: Final = """\
adprior rank: bundle {bundle_id} has no fitted head, so every adjustment is 0. To fit one, take a
ranking log (the rows of Ranking.to_log with labels joined, or a simulated one), and:
  adprior bench simulate-log --bundle BUNDLE --events EVENTS --profiles PROFILES \\
    --columns MAP --output log.parquet
  adprior fit-head --logs log.parquet --bundle BUNDLE --output head.onnx
  adprior build --bundle BUNDLE --head head.onnx --output REPO"""
_COLUMNS: Final[tuple[Column, ...]] = (
    ("rank", "right"),
    ("advertiser id", "right"),
    ("base logit", "right"),
    ("prior adds", "right"),
    ("logit", "right"),
    ("probability", "right"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    add_connection_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--user", metavar="FILE", help=USER_HELP)
    source.add_argument(
        "--forecast",
        metavar="FILE",
        help="the user's forecast, from adprior predict --json; candidates that it does not list "
        "have only an upper bound, so their logits differ from those with --user",
    )
    parser.add_argument(
        "--candidates",
        required=True,
        metavar="FILE",
        help="JSON list of {advertiser_id, base_logit}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the ranking, and return the exit code."""
    source = args.forecast if args.user is None else args.user
    if source == args.candidates == STANDARD_INPUT:
        raise InvalidInputError("standard input was given twice: only one FILE can be -")
    subject = read_forecast(source) if args.user is None else read_user(source)
    candidates, base_logits = read_candidates(args.candidates)
    config = read_connection(args)
    model = ADVERTISER_RANKING if args.forecast is None else PRIOR_HEAD
    with explain_deadline(config, model), RankingClient(config) as client:
        ranking = client.score(subject, candidates, base_logits)
    if args.json:
        print(to_json(ranking.to_json(), ensure_ascii=False, indent=2))
    else:
        print(_table(ranking))
    if isinstance(subject, bytes):
        print_context_use("rank", config, subject, as_json=args.json)
    if ranking.has_fitted_head is False and not args.json:
        print(_NO_HEAD.format(bundle_id=ranking.bundle_id), file=sys.stderr)
    return 0


def _table(ranking: Ranking) -> str:
    best_first = sorted(ranking.candidates, key=lambda item: -item.adjusted_logit)
    rows = [
        (
            str(place),
            str(item.advertiser_id),
            f"{item.base_logit:.3f}",
            f"{item.adjusted_logit - item.base_logit:+.3f}",
            f"{item.adjusted_logit:.3f}",
            _prior(item),
        )
        for place, item in enumerate(best_first, start=1)
    ]
    bundle_id = ranking.bundle_id or "none (nothing was sent)"
    return f"{format_table(_COLUMNS, rows)}\n\nBundle: {bundle_id}"


def _prior(item: RankedCandidate) -> str:
    if item.log_prob is None:
        return "not in catalogue"
    shown = format_percent(min(math.exp(item.log_prob), 1.0))
    return shown if item.status == "exact" else f"at most {shown}"
