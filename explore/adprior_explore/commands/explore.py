"""``adprior explore``: serve a local web page that shows what a model makes of a user."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from adprior_client import ClientConfig, ForecastSource, ParquetForecasts, RedisForecasts
from adprior_client.cli.connection_options import add_connection_arguments, read_connection
from adprior_client.server_list import each_server
from adprior_explore.examples import read_examples
from adprior_explore.reports import find_reports
from adprior_explore.server.application import Exploration, make_application
from adprior_explore.server.listener import Listener
from adprior_explore.server.protection import Access
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import read_token

EXAMPLE: Final = """\
examples:
  adprior explore --url localhost:8001 --users demo/users/*.json
  adprior explore --url localhost:8001 --bundle-b localhost:9001 --report quality --report server

Then open the address that it prints. Ctrl-C ends it. docs/explore.md explains each view."""
DEFAULT_PORT: Final = 8765
_REDIS: Final = ("redis://", "rediss://", "unix://")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    add_connection_arguments(parser)
    parser.add_argument(
        "--bundle-b",
        metavar="HOST:PORT",
        help="a second server, with another bundle, to compare with; the options of protected "
        "servers hold for both",
    )
    parser.add_argument(
        "--users",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="user contexts as JSON, to begin with (default: one user without a history)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a report to open in the page: what adprior bench quality or server wrote with "
        "--output; may be repeated",
    )
    parser.add_argument(
        "--stored",
        metavar="PLACE",
        help="stored forecasts, to rank with by user id: Parquet files of adprior bulk, or the "
        "redis:// URL of adprior publish",
    )
    _add_page_arguments(parser.add_argument_group("the page"))


def _add_page_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    add(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        metavar="PORT",
        help="port of the page, 0 for a free one (default: %(default)s)",
    )
    add(
        "--page-token-file",
        type=Path,
        metavar="FILE",
        help="file with a token that the page asks for; needed unless --host is loopback",
    )
    add("--page-cert", type=Path, metavar="FILE", help="certificate chain of the page, PEM")
    add("--page-key", type=Path, metavar="FILE", help="private key of the page's certificate, PEM")
    add(
        "--insecure",
        action="store_true",
        help="serve the page to other machines in plain text; only for a network that is trusted "
        "or encrypted",
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page until the command is stopped."""
    token = None if args.page_token_file is None else read_token(args.page_token_file)
    listener = Listener(
        host=args.host,
        port=args.port,
        certificate=args.page_cert,
        key=args.page_key,
        insecure=args.insecure,
        has_token=token is not None,
    )
    app = make_application(
        Exploration(
            configs=_read_connections(args),
            examples=read_examples(args.users),
            reports=find_reports(args.report),
            store=_open_store(args.stored),
            access=Access(token=token),
            secure=listener.is_secure,
        )
    )
    server = listener.prepare(app)
    with listener.bind() as bound:
        print(f"adprior explore: open {listener.url(bound)}  (Ctrl-C ends it)", flush=True)
        server.run(sockets=[bound])
    return 0


def _read_connections(args: argparse.Namespace) -> Mapping[str, ClientConfig]:
    """Return how to reach each server; a name or a file must stand for one server.

    Raises:
        InvalidInputError: It stands for several: their statistics would not be the request's.
    """
    config = read_connection(args)
    given = {"a": args.url, "b": args.bundle_b}
    configs = {}
    for side, url in given.items():
        if url is None:
            continue
        servers = each_server(replace(config, urls=(url,)))
        if len(servers) > 1:
            raise InvalidInputError(f"{url}: found {len(servers)} servers, expected one")
        configs[side] = servers[0]
    return configs


def _open_store(place: str | None) -> ForecastSource | None:
    if place is None:
        return None
    return RedisForecasts(place) if place.startswith(_REDIS) else ParquetForecasts(place)
