"""The output of ``adprior publish``: a publication or the list of versions, as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from adprior_bulk.publish.publication import Publication
from adprior_bulk.publish.versions import Version
from adprior_runtime.terminal.tables import Column, format_table

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final[tuple[Column, ...]] = (
    ("version", "left"),
    ("in use", "left"),
    ("users", "right"),
    ("forecasts made", "left"),
    ("bundles", "left"),
    ("expires (UTC)", "left"),
)


def version_json(version: Version, *, active: bool) -> dict[str, Any]:
    """Return the JSON object of a version."""
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


def versions_text(versions: Sequence[Version], active: str | None) -> str:
    """Return the list of versions as a table."""
    cells = [
        (
            item.name,
            "yes" if item.name == active else "" if item.is_complete else "unfinished",
            f"{item.users:,}",
            _span(item),
            ", ".join(item.bundle_ids),
            _time(item.expires_at),
        )
        for item in versions
    ]
    return format_table(_COLUMNS, cells)


def published_json(done: Publication) -> dict[str, Any]:
    """Return the JSON object of a publication."""
    return version_json(done.version, active=done.is_active) | {
        "previous": done.previous,
        "already_there": done.was_there,
        "rows": done.rows,
        "without_advertisers": done.without_advertisers,
        "from_future": done.from_future,
        "replaced": done.replaced,
        "unfinished_versions_removed": done.swept,
        "bytes_per_user": done.bytes_per_user,
        "seconds": done.seconds,
        "users_per_s": done.users_per_s,
    }


def published_text(done: Publication) -> str:
    """Return the summary of a publication as a table."""
    version = done.version
    result = "already there" if done.was_there else "written and counted"
    rows = [
        ("version", f"{version.name}, {result}"),
        ("in use now", "yes" if done.is_active else f"no: --activate {version.name}"),
        ("in use before", done.previous or "none"),
        ("users", f"{version.users:,}"),
        ("rows", f"{done.rows:,}"),
        ("rows without advertisers", f"{done.without_advertisers:,}"),
        ("rows replaced by the same user's latest", f"{done.replaced:,}"),
        ("forecasts made", _span(version)),
        ("bundles", ", ".join(version.bundle_ids)),
        ("expires", _time(version.expires_at)),
    ]
    if done.from_future:
        rows.append(("rows dated in the future, left out", f"{done.from_future:,}"))
    if done.swept:
        rows.append(("unfinished versions removed", str(done.swept)))
    if done.bytes_per_user is not None:
        rows.append(("Redis memory", f"{done.bytes_per_user:.0f} bytes per user"))
    if done.users_per_s is not None:
        rows.append(("rate", f"{done.users_per_s:,.0f} users/s, {done.seconds:.1f} s"))
    return format_table((("", "left"), ("", "left")), rows).lstrip("\n")


def _span(version: Version) -> str:
    if version.as_of_us is None:
        return ""
    first, last = (f"{_moment(value):%Y-%m-%d %H:%M}" for value in version.as_of_us)
    return first if first == last else f"{first} to {last}"


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
