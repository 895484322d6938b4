"""``adprior publish``: put stored forecasts into Redis."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from redis import RedisError
from tqdm import tqdm

from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_bulk.publish.namespace import Namespace
from adprior_bulk.publish.publication import Publication, publish
from adprior_bulk.publish.report import (
    published_json,
    published_text,
    version_json,
    versions_text,
)
from adprior_bulk.publish.versions import Versions
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_client.stored.redis_connection import RedisAddress, read_password
from adprior_client.stored.redis_errors import RedisProblemError, explain
from adprior_client.stored.redis_keys import DEFAULT_NAMESPACE, Keys
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """example:
  adprior publish --forecasts FORECASTS --redis redis://localhost:6379/0
  adprior publish --redis redis://localhost:6379/0 --list
  adprior publish --redis redis://localhost:6379/0 --activate 20260101T031500.250Z-3fa9c2

Readers see one version or the other, never a mix. The old version stays until it expires, so that
--activate can return to it. The password comes from --password-file or ADPRIOR_REDIS_PASSWORD,
never from the command line."""

PASSWORD_VARIABLE: Final = "ADPRIOR_REDIS_PASSWORD"  # noqa: S105  a name, not a password
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
_MOST_DAYS: Final = 366
_BATCH_ROWS: Final = 32768
"""Rows per batch. A batch takes about 100 MB if each forecast has 20 advertisers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--forecasts",
        type=Path,
        metavar="PATH",
        help="publish a Parquet file, a directory (as its _manifest.json lists it), or a manifest",
    )
    action.add_argument(
        "--activate", metavar="VERSION", help="let readers use this version: a rollback"
    )
    action.add_argument("--list", action="store_true", help="list the versions")
    _add_redis_arguments(parser)
    parser.add_argument(
        "--ttl",
        type=_seconds,
        default=_seconds("2d"),
        metavar="TIME",
        help="lifetime of the version from now, such as 90m, 47h or 2d (default: 2d); "
        "files that are already published get the new lifetime",
    )
    parser.add_argument(
        "--keep-active",
        action="store_true",
        help="write and count only; readers keep their version until --activate",
    )
    parser.add_argument(
        "--batch-rows",
        type=positive_integer,
        default=_BATCH_ROWS,
        metavar="N",
        help=f"rows per exchange with Redis (default: {_BATCH_ROWS:,}); more rows take more memory",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_redis_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        required=True,
        metavar="URL",
        help="redis://[USER@]HOST:PORT/DB, rediss:// for TLS, or unix:///PATH?db=DB",
    )
    parser.add_argument(
        "--namespace",
        default=DEFAULT_NAMESPACE,
        metavar="NAME",
        help=f"prefix of every key (default: {DEFAULT_NAMESPACE})",
    )
    for name, text in (
        ("--password-file", "file that holds only the password"),
        ("--tls-ca-file", "certificates to trust (PEM)"),
        ("--tls-certificate-file", "client certificate (PEM)"),
        ("--tls-key-file", "private key of the client certificate (PEM)"),
    ):
        parser.add_argument(name, type=Path, metavar="FILE", help=text)
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="TIME",
        help="timeout of each answer from Redis (default: 10s)",
    )


def run(args: argparse.Namespace) -> int:
    """Publish, activate or list; return the exit code.

    Raises:
        InvalidInputError: An option or a file is wrong.
        RedisProblemError: Redis cannot be reached, or refuses.
    """
    if args.keep_active and args.forecasts is None:
        raise InvalidInputError("--keep-active goes with --forecasts only")
    address = RedisAddress(
        args.redis,
        password=_password(args),
        tls_ca_file=args.tls_ca_file,
        tls_certificate_file=args.tls_certificate_file,
        tls_key_file=args.tls_key_file,
    )
    keys = Keys(args.namespace)
    consequence = "" if args.forecasts is None else "; readers keep their version"
    with _redis_errors_explained(address.name, consequence):
        redis = address.connect(timeout_s=args.timeout, max_connections=2)
        namespace = Namespace(redis=redis, keys=keys, address=address.name)
        versions = Versions(namespace)
        if args.list:
            _print_versions(versions, as_json=args.json)
        elif args.activate is not None:
            _activate(versions, args.activate, as_json=args.json)
        else:
            redis.ping()  # fails now, not after minutes of reading
            done = _publish(args, namespace)
            print(to_json(published_json(done), indent=2) if args.json else published_text(done))
    return 0


def _publish(args: argparse.Namespace, namespace: Namespace) -> Publication:
    reader = ForecastReader(list_forecast_files(args.forecasts))
    with tqdm(total=reader.rows, unit="user", desc="adprior publish", disable=None) as bar:
        return publish(
            namespace,
            reader,
            lifetime_s=args.ttl,
            activate=not args.keep_active,
            batch_rows=args.batch_rows,
            advance=bar.update,
        )


def _activate(versions: Versions, name: str, *, as_json: bool) -> None:
    previous = versions.active()
    version = versions.activate(name)
    if as_json:
        print(to_json(version_json(version, active=True) | {"previous": previous}, indent=2))
    else:
        before = previous or "none"
        print(f"In use now: {version.name}, {version.users:,} users. In use before: {before}.")


def _print_versions(versions: Versions, *, as_json: bool) -> None:
    active, found = versions.active(), versions.all()
    if as_json:
        listed = [version_json(item, active=item.name == active) for item in found]
        print(to_json(listed, indent=2))
    else:
        print(versions_text(found, active))


def _password(args: argparse.Namespace) -> str | None:
    if args.password_file is not None:
        return read_password(args.password_file)
    return os.environ.get(PASSWORD_VARIABLE) or None


def _seconds(text: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if not 1 <= seconds <= _MOST_DAYS * 86400:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a time from 1s to {_MOST_DAYS}d, such as 90m, 47h or 2d"
        )
    return seconds


@contextmanager
def _redis_errors_explained(address: str, consequence: str) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise RedisProblemError(f"{explain(error, address)}{consequence}") from error
