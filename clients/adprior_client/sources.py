"""Stored forecasts, for when the live one does not come: made by yesterday's bulk run, say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from adprior_client.results import Advertiser, Forecast
from adprior_client.types import Source, UserId
from adprior_runtime.errors import InvalidInputError

__all__ = ["ForecastSource", "ParquetForecasts"]

_COLUMNS: Final = (
    "user_id",
    "as_of",
    "advertiser_ids",
    "log_probs",
    "exact",
    "missing_mass",
    "bundle_id",
)


@runtime_checkable
class ForecastSource(Protocol):
    """Where stored forecasts are found; anything with this method will do."""

    def find(self, user_id: UserId) -> Forecast | None:
        """Return the user's latest forecast, ``source`` stored and ``age_s`` set, or None.

        Threads share a source. An exception counts as none.
        """
        ...


class ParquetForecasts:
    """Forecasts in Parquet files, read into memory once.

    The columns: ``user_id``, ``as_of``, ``advertiser_ids``, ``log_probs``, ``exact``,
    ``missing_mass``, ``bundle_id``; ``advertiser_names`` if there are any. A user's latest counts.

    Args:
        path: A Parquet file, or a directory of them (partitioned or not).
        now: The present, for ages.

    Raises:
        InvalidInputError: It is unreadable, a column is missing, or pyarrow is.
    """

    def __init__(
        self, path: str | Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        table = _read(Path(path))
        self._ids = table["user_id"].combine_chunks()
        self._table = table
        self._as_of = _as_utc(table["as_of"].to_pylist(), path)
        self._rows: dict[UserId, int] = {}
        for row, user_id in enumerate(self._ids.to_pylist()):
            known = self._rows.get(user_id)
            if known is None or self._as_of[known] <= self._as_of[row]:
                self._rows[user_id] = row

    def __len__(self) -> int:
        """How many users have a forecast."""
        return len(self._rows)

    def find(self, user_id: UserId) -> Forecast | None:
        """See `ForecastSource.find`; an id that is text does not match a number."""
        row = self._rows.get(user_id)
        if row is None:
            return None
        values: dict[str, Any] = self._table.slice(row, 1).to_pylist()[0]
        ids, log_probs = values["advertiser_ids"] or [], values["log_probs"] or []
        names: Sequence[str] = values.get("advertiser_names") or [""] * len(ids)
        age = self._now() - self._as_of[row]
        return Forecast(
            advertisers=tuple(
                Advertiser(advertiser_id=advertiser_id, name=name, log_prob=log_prob)
                for advertiser_id, name, log_prob in zip(ids, names, log_probs, strict=True)
            ),
            exact=bool(values["exact"]),
            missing_mass=float(values["missing_mass"]),
            bundle_id=values["bundle_id"] or "",
            source=Source.STORED,
            age_s=age.total_seconds(),
        )


def _read(path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415  not among what the clients need
        import pyarrow.dataset as ds  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInputError(
            f"{path}: reading Parquet needs pyarrow: pip install 'adprior[parquet]'"
        ) from error
    try:
        dataset = ds.dataset(path, format="parquet", partitioning="hive")
        missing = [name for name in _COLUMNS if name not in dataset.schema.names]
        if missing:
            raise InvalidInputError(
                f"{path}: no column {', '.join(missing)}; found {', '.join(dataset.schema.names)}"
            )
        optional = [name for name in ("advertiser_names",) if name in dataset.schema.names]
        return dataset.to_table(columns=[*_COLUMNS, *optional])
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"{path}: not Parquet forecasts: {reason}") from error


def _as_utc(moments: Sequence[Any], path: str | Path) -> np.ndarray[Any, Any]:
    """Return moments with a zone; one without is taken as UTC, a date as its first instant."""
    found = np.empty(len(moments), dtype=np.object_)
    for row, moment in enumerate(moments):
        value = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        if not isinstance(value, datetime):
            if not hasattr(value, "year"):
                raise InvalidInputError(f"{path}: as_of: row {row} (from 0): expected a time")
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        found[row] = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return found
