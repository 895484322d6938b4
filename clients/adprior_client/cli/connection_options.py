"""How `adprior predict` and `adprior rank` reach a server: options to a `ClientConfig`."""

from __future__ import annotations

import argparse

from adprior_client.config import ClientConfig


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the server is and what it wants to see."""
    parser.add_argument("--url", required=True, metavar="HOST:PORT", help="the server's gRPC port")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="deadline, seconds (default: 10)"
    )
    group = parser.add_argument_group("a protected server")
    group.add_argument("--token-file", metavar="FILE", help="with the server's inference token")
    group.add_argument(
        "--tls", action="store_true", help="use TLS, with the system's authorities; so do the files"
    )
    group.add_argument("--tls-ca", metavar="FILE", help="authorities to trust instead, PEM")
    group.add_argument("--tls-cert", metavar="FILE", help="mutual TLS: our certificate, PEM")
    group.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    group.add_argument(
        "--tls-server-name", metavar="NAME", help="the certificate's name, if not the host's"
    )


def read_connection(args: argparse.Namespace) -> ClientConfig:
    """Return the configuration of a client that raises what goes wrong.

    Raises:
        InvalidArgumentError: A setting is impossible.
    """
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
