"""The options of `adprior rollout`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from adprior_client.rollout.comparison import LEAST_LOOKS
from adprior_client.rollout.metrics_page import show_url
from adprior_client.rollout.rules import Limits
from adprior_client.rollout.steps import Pace
from adprior_client.rollout.switch import check_urls
from adprior_client.server_sources import is_address, join_host_port
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import (
    duration,
    number_from_zero,
    positive_integer,
    positive_number,
)

_LIMITS: Final = Limits()
_LOOKS: Final = 40
"""Looks at the metrics in a hold."""
_LOOK_S: Final = (1.0, 15.0)
"""Shortest and longest time between two looks."""
_DIGITS: Final = 9
"""Decimal digits of a share in the file of servers."""


def add_rollout_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a rollout."""
    parser.add_argument(
        "--servers", required=True, type=Path, metavar="FILE", help="the file that clients follow"
    )
    parser.add_argument("--canary", nargs="+", metavar="HOST:PORT", help="the new bundle's servers")
    parser.add_argument(
        "--stable", nargs="+", metavar="HOST:PORT", help="the present servers (default: FILE's)"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="HOST:PORT=ADDRESS",
        help="a server's metrics, HOST:PORT or a URL (default: its gRPC port plus 1)",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        type=float,
        default=[0.01, 0.05, 0.25, 0.5],
        metavar="SHARE",
        help="shares of the users, growing (default: 0.01 0.05 0.25 0.5); all users follow",
    )
    parser.add_argument(
        "--hold", type=duration, default=600.0, metavar="TIME", help="of a step (default: 10m)"
    )
    parser.add_argument(
        "--longest", type=duration, metavar="TIME", help="of a step (default: 3 times --hold)"
    )
    parser.add_argument(
        "--look",
        type=duration,
        metavar="TIME",
        help="between looks (default: --hold / 40, 1 to 15 s)",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="PATH",
        help="rankings with outcomes: rows of Ranking.to_log with a column label, as Parquet; a "
        "file or a directory, read again when it changes",
    )
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="print the state and end")
    what.add_argument(
        "--rollback", action="store_true", help="send all users to the stable servers and end"
    )
    what.add_argument(
        "--again", action="store_true", help="begin again with a canary that was rolled back"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rules")
    options: Sequence[tuple[str, Callable[[str], float], float, str, str]] = (
        (
            "--max-error-increase",
            number_from_zero,
            _LIMITS.error_increase,
            "SHARE",
            "most failed requests above the stable share",
        ),
        (
            "--max-latency-ratio",
            positive_number,
            _LIMITS.latency_ratio,
            "RATIO",
            "longest mean time of an answer, in times of the stable one",
        ),
        (
            "--max-p95-ratio",
            positive_number,
            _LIMITS.tail_ratio,
            "RATIO",
            "largest 95th percentile of the searches, in times of the stable one",
        ),
        (
            "--max-exact-drop",
            number_from_zero,
            _LIMITS.exact_drop,
            "SHARE",
            "most certified forecasts below the stable share",
        ),
        (
            "--max-psi",
            number_from_zero,
            _LIMITS.psi,
            "INDEX",
            "largest stability index between the forecasts of both",
        ),
        (
            "--max-miscalibration",
            positive_number,
            _LIMITS.miscalibration,
            "RATIO",
            "with --log: how many times as far from the outcomes the probabilities may be",
        ),
        (
            "--min-requests",
            positive_integer,
            _LIMITS.requests,
            "N",
            "fewest requests of each group in a step",
        ),
    )
    for name, kind, default, metavar, text in options:
        group.add_argument(
            name,
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )


def read_urls(name: str, urls: list[str] | None) -> tuple[str, ...] | None:
    """Return the servers of an option; None without it."""
    try:
        return None if urls is None else check_urls(urls)
    except ValueError as error:
        raise InvalidInputError(f"--{name}: {error}") from error


def read_limits(args: argparse.Namespace) -> Limits:
    """Return the limits that the options set."""
    return Limits(
        error_increase=args.max_error_increase,
        latency_ratio=args.max_latency_ratio,
        tail_ratio=args.max_p95_ratio,
        exact_drop=args.max_exact_drop,
        psi=args.max_psi,
        miscalibration=args.max_miscalibration,
        requests=args.min_requests,
    )


def read_pace(args: argparse.Namespace) -> Pace:
    """Return the pace that the options set; raises InvalidInputError for wrong steps or times."""
    shares = tuple(round(share, _DIGITS) for share in args.steps)
    is_growing = all(one < two for one, two in pairwise(shares))
    if not is_growing or not all(0 < share < 1 for share in shares):
        found = " ".join(map(str, args.steps))
        raise InvalidInputError(f"--steps: found {found}, expected growing shares between 0 and 1")
    shortest_s, most_s = _LOOK_S
    look_s = args.look or min(max(args.hold / _LOOKS, shortest_s), most_s)
    longest_s = 3 * args.hold if args.longest is None else max(args.longest, args.hold)
    # A quotient of two decimals may be just below a whole number.
    if (looks := int(longest_s / look_s + 1e-6)) < LEAST_LOOKS:
        raise InvalidInputError(
            f"--look: found {looks} looks of {look_s:g} s in {longest_s:g} s, the longest time of "
            f"a step, expected at least {LEAST_LOOKS}"
        )
    return Pace(shares=shares, hold_s=args.hold, longest_s=longest_s, look_s=look_s)


def read_metrics(texts: Sequence[str]) -> Mapping[str, str]:
    """Return the URLs of metrics that ``--metrics`` gives, by server."""
    found = {}
    for text in texts:
        server, mark, place = text.partition("=")
        if not is_address(server) or not (_is_url(place) or is_address(place)):
            found_text = f"{show_url(server)}{mark}{show_url(place)}"
            raise InvalidInputError(
                f"--metrics: found {found_text!r}, expected HOST:PORT=HOST:PORT or HOST:PORT=URL"
            )
        found[server] = place if _is_url(place) else f"http://{place}/metrics"
    return found


def page_url(server: str, metrics: Mapping[str, str]) -> str:
    """Return the URL of a server's metrics: the one given, or the port after its gRPC port."""
    if server in metrics:
        return metrics[server]
    host, _, port = server.rpartition(":")
    return f"http://{join_host_port(host.strip('[]'), int(port) + 1)}/metrics"


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))
