"""Options of `adprior predict` and `adprior rank` that say which user and which server."""

from __future__ import annotations

import argparse
import logging
from typing import Final

from adprior_client.config import ClientConfig

USER_HELP: Final = (
    "user context as JSON; - reads standard input. A time without a zone is taken as UTC"
)
_PROTECTION: Final = (
    ("--token-file", "FILE", "file with the server's inference token"),
    ("--tls-ca", "FILE", "certificates to trust instead of the system's, PEM"),
    ("--tls-cert", "FILE", "client certificate for mutual TLS, PEM"),
    ("--tls-key", "FILE", "private key of the client certificate, PEM"),
    ("--tls-server-name", "NAME", "name in the server's certificate if it is not the host"),
)


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the connection to the server."""
    parser.add_argument(
        "--url",
        required=True,
        metavar="HOST:PORT",
        help="the server's gRPC port; dns:///NAME:PORT or file:///PATH for several servers",
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="deadline, seconds (default: 10)"
    )
    group = parser.add_argument_group("protected servers")
    group.add_argument(
        "--tls",
        action="store_true",
        help="use TLS and trust the system's certificates; any TLS option turns TLS on",
    )
    for name, metavar, text in _PROTECTION:
        group.add_argument(name, metavar=metavar, help=text)


def read_connection(args: argparse.Namespace) -> ClientConfig:
    """Return the configuration of a client that raises every failure."""
    # Without a handler, warnings would go to standard error: every error in two lines.
    logging.getLogger("adprior_client").addHandler(logging.NullHandler())
    return ClientConfig(
        urls=(args.url,),
        deadline_s=args.timeout,
        fail_open=False,
        token_file=args.token_file,
        tls=args.tls,
        tls_ca_file=args.tls_ca,
        tls_certificate_file=args.tls_cert,
        tls_key_file=args.tls_key,
        tls_server_name=args.tls_server_name,
    )
