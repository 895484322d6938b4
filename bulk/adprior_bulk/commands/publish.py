"""``adprior publish``: put stored forecasts into Redis."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from redis import RedisError
from tqdm import tqdm

from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_bulk.publish.publishing import Published, publish
from adprior_bulk.publish.versions import Version, Versions
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_client.stored.redis_connection import RedisAddress, read_password
from adprior_client.stored.redis_errors import RedisProblemError, explain
from adprior_client.stored.redis_keys import DEFAULT_NAMESPACE, Keys
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """example:
  adprior publish --forecasts FORECASTS --redis redis://localhost:6379/0
  adprior publish --redis redis://localhost:6379/0 --list
  adprior publish --redis redis://localhost:6379/0 --activate 20260101T031500.250Z-3fa9c2

A password comes from --password-file or ADPRIOR_REDIS_PASSWORD, never from the command line.
Readers see the old version or the new one; the old one stays until it expires, for --activate."""

PASSWORD_VARIABLE: Final = "ADPRIOR_REDIS_PASSWORD"  # noqa: S105  a name, not a password
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
_MOST_DAYS: Final = 366
_BATCH_ROWS: Final = 32768
"""At 20 advertisers some 100 MB of memory, and a few users for each bucket that is touched."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final[tuple[Column, ...]] = (
    ("version", "left"),
    ("read", "left"),
    ("users", "right"),
    ("forecasts made", "left"),
    ("bundles", "left"),
    ("expires (UTC)", "left"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--forecasts",
        type=Path,
        metavar="PATH",
        help="a Parquet file, a directory of them (its _manifest.json counts), or a manifest",
    )
    what.add_argument("--activate", metavar="VERSION", help="let this version be read: roll back")
    what.add_argument("--list", action="store_true", help="the versions that are there")
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
        help=f"what every key begins with ({DEFAULT_NAMESPACE})",
    )
    parser.add_argument(
        "--ttl",
        type=_lifetime,
        default=_lifetime("2d"),
        metavar="TIME",
        help="a version's lifetime from now on, as 90m, 47h or 2d (2d); files that were published "
        "before get it anew, longer or shorter",
    )
    parser.add_argument(
        "--keep-active",
        action="store_true",
        help="write and count only; --activate switches later",
    )
    parser.add_argument(
        "--batch-rows",
        type=positive_integer,
        default=_BATCH_ROWS,
        metavar="N",
        help=f"rows that are read and sent at once ({_BATCH_ROWS:,}); memory goes by it",
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the password, alone")
    parser.add_argument("--tls-ca-file", type=Path, metavar="PEM", help="certificates to trust")
    parser.add_argument("--tls-certificate-file", type=Path, metavar="PEM", help="our certificate")
    parser.add_argument("--tls-key-file", type=Path, metavar="PEM", help="its key")
    parser.add_argument(
        "--timeout",
        type=_lifetime,
        default=10.0,
        metavar="TIME",
        help="the longest wait for an answer (10s)",
    )
    parser.add_argument("--json", action="store_true", help="the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Publish, switch or list; return the exit code.

    Raises:
        InvalidInputError: An option or a file is wrong.
        RedisProblemError: Redis cannot be reached, or refuses.
    """
    if args.keep_active and args.forecasts is None:
        raise InvalidInputError("--keep-active goes with --forecasts only")
    keys = Keys(args.namespace)
    address = RedisAddress(
        args.redis,
        password=_password(args),
        tls_ca_file=args.tls_ca_file,
        tls_certificate_file=args.tls_certificate_file,
        tls_key_file=args.tls_key_file,
    )
    left = "" if args.forecasts is None else "; readers keep the version that they had"
    with _told_in_one_line(address.name, left):
        redis = address.connect(timeout_s=args.timeout, max_connections=2)
        versions = Versions(redis, keys, address.name)
        if args.list:
            _print_versions(versions, as_json=args.json)
        elif args.activate is not None:
            previous = versions.active()
            version = versions.activate(args.activate)
            _print_activated(version, previous, as_json=args.json)
        else:
            redis.ping()  # before minutes of reading
            _print_published(_publish(args, redis, keys, address.name), as_json=args.json)
    return 0


def _publish(args: argparse.Namespace, redis: Any, keys: Keys, address: str) -> Published:
    reader = ForecastReader(list_forecast_files(args.forecasts))
    with tqdm(total=reader.rows, unit="user", desc="adprior publish", disable=None) as bar:
        return publish(
            redis,
            keys,
            address,
            reader,
            lifetime_s=args.ttl,
            activate=not args.keep_active,
            batch_rows=args.batch_rows,
            advance=bar.update,
        )


def _print_published(done: Published, *, as_json: bool) -> None:
    version = done.version
    rate = version.users / done.seconds if done.seconds else None
    if as_json:
        report = _describe(version, active=done.is_active) | {
            "previous": done.previous,
            "already_there": done.was_there,
            "rows": done.rows,
            "without_advertisers": done.without_advertisers,
            "from_future": done.from_future,
            "replaced": done.replaced,
            "unfinished_versions_removed": done.swept,
            "bytes_per_user": done.bytes_a_user,
            "seconds": done.seconds,
            "users_per_s": rate,
        }
        print(to_json(report, indent=2))
        return
    said = "was there already" if done.was_there else "written and counted"
    rows = [
        ("version", f"{version.name}, {said}"),
        ("read now", "yes" if done.is_active else f"no: --activate {version.name}"),
        ("read before", done.previous or "none"),
        ("users", f"{version.users:,}"),
        ("rows", f"{done.rows:,}"),
        ("rows without advertisers", f"{done.without_advertisers:,}"),
        ("rows of users that came again", f"{done.replaced:,}"),
        ("forecasts made", _span(version)),
        ("bundles", ", ".join(version.bundle_ids)),
        ("expires", _time(version.expires_at)),
    ]
    if done.from_future:
        rows.append(("rows from the future, left out", f"{done.from_future:,}"))
    if done.swept:
        rows.append(("unfinished versions removed", str(done.swept)))
    if done.bytes_a_user is not None:
        rows.append(("Redis memory", f"{done.bytes_a_user:.0f} bytes a user"))
    if rate is not None:
        rows.append(("rate", f"{rate:,.0f} users/s, {done.seconds:.1f} s"))
    print(format_table((("", "left"), ("", "left")), rows).lstrip("\n"))


def _print_activated(version: Version, previous: str | None, *, as_json: bool) -> None:
    if as_json:
        print(to_json(_describe(version, active=True) | {"previous": previous}, indent=2))
    else:
        print(f"Read now: {version.name}, {version.users:,} users. Before: {previous or 'none'}.")


def _print_versions(versions: Versions, *, as_json: bool) -> None:
    active, found = versions.active(), versions.all()
    if as_json:
        print(to_json([_describe(item, active=item.name == active) for item in found], indent=2))
        return
    cells = [
        (
            item.name,
            "yes" if item.name == active else "" if item.is_complete else "unfinished",
            f"{item.users:,}",
            _span(item),
            ", ".join(item.bundle_ids),
            _time(item.expires_at),
        )
        for item in found
    ]
    print(format_table(_COLUMNS, cells))


def _describe(version: Version, *, active: bool) -> dict[str, Any]:
    first, last = version.as_of_us or (None, None)
    return {
        "version": version.name,
        "active": active,
        "complete": version.is_complete,
        "users": version.users,
        "buckets": version.buckets,
        "bundle_ids": list(version.bundle_ids),
        "as_of_first": None if first is None else _moment(first).isoformat(),
        "as_of_last": None if last is None else _moment(last).isoformat(),
        "expires_at": datetime.fromtimestamp(version.expires_at, UTC).isoformat(),
    }


def _span(version: Version) -> str:
    if version.as_of_us is None:
        return ""
    first, last = (f"{_moment(value):%Y-%m-%d %H:%M}" for value in version.as_of_us)
    return first if first == last else f"{first} to {last}"


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _password(args: argparse.Namespace) -> str | None:
    if args.password_file is not None:
        return read_password(args.password_file)
    return os.environ.get(PASSWORD_VARIABLE) or None


def _lifetime(text: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if not 1 <= seconds <= _MOST_DAYS * 86400:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a time from 1s to {_MOST_DAYS}d, as 90m, 47h or 2d"
        )
    return seconds


@contextmanager
def _told_in_one_line(address: str, left: str) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise RedisProblemError(f"{explain(error, address)}{left}") from error
