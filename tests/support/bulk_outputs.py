"""Outputs of ``adprior bulk``: manifests and rows of its tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from adprior_bulk.output.manifest import Manifest

AS_OF: Final = datetime(2024, 5, 1, tzinfo=UTC)


def make_manifest(version: str = "v", **changes: Any) -> Manifest:
    """Return the manifest of a version with one shard and no files, but for ``changes``."""
    values: dict[str, Any] = {
        "request": "r",
        "date": "2024-05-01",
        "as_of": AS_OF.isoformat(),
        "made_at": AS_OF.isoformat(),
        "bundle_id": "b",
        "top_k": None,
        "shards": 1,
        "files": (),
    }
    return Manifest(version=version, **values | changes)


def forecast_row(user_id: str, bundle_id: str = "b") -> tuple[Any, ...]:
    """Return a row of the table of forecasts."""
    times = (None, AS_OF + timedelta(days=7), AS_OF - timedelta(days=30))
    return (user_id, AS_OF, [7, 2**40], [-0.5, -1.5], True, 0.25, bundle_id, *times, 1)
