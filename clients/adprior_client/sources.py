"""Stored forecasts, for when the live one does not come: made by yesterday's bulk run, say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from adprior_client.results import Advertiser, Forecast
from adprior_client.types import Source, UserId
from adprior_runtime.errors import InvalidInputError

__all__ = ["ForecastSource", "ParquetForecasts"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
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
        """Return the user's latest forecast, with ``made_at``, or None.

        It is asked in a thread, has what is left of the call's deadline (10 ms at least), and is
        not waited for beyond that. What it raises, or gives that is malformed, counts as none.
        """
        ...


class ParquetForecasts:
    """Forecasts in Parquet files, read into memory once.

    The columns: ``user_id``, ``as_of`` (when it was made), ``advertiser_ids``, ``log_probs``,
    ``exact``, ``missing_mass``, ``bundle_id``; ``advertiser_names`` if there are any. A user's
    latest counts, and rows without advertisers do not.

    Args:
        path: A Parquet file, or a directory of them (partitioned or not).

    Raises:
        InvalidInputError: It is unreadable, a column is missing or no time, or pyarrow is missing.
    """

    def __init__(self, path: str | Path) -> None:
        table = _read(Path(path))
        self._made_at = _microseconds(table["as_of"], path)
        self._table = table
        lengths = table["advertiser_ids"].combine_chunks().value_lengths().fill_null(0)
        kept = np.flatnonzero(lengths.to_numpy(zero_copy_only=False) > 0)
        kept = kept[np.argsort(self._made_at[kept], kind="stable")]
        ids = table["user_id"].take(kept).to_pylist()
        self._rows: dict[UserId, int] = dict(zip(ids, kept.tolist(), strict=True))

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
        return Forecast(
            advertisers=tuple(
                Advertiser(advertiser_id=advertiser_id, name=name, log_prob=log_prob)
                for advertiser_id, name, log_prob in zip(ids, names, log_probs, strict=True)
            ),
            exact=bool(values["exact"]),
            missing_mass=float(values["missing_mass"]),
            bundle_id=values["bundle_id"] or "",
            source=Source.STORED,
            made_at=_EPOCH + timedelta(microseconds=int(self._made_at[row])),
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


def _microseconds(column: Any, path: str | Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return times since 1970: of dates their first instant, without a zone as UTC."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        zone = getattr(column.type, "tz", None)
        times = column.combine_chunks().cast(pa.timestamp("us", zone), safe=False)
    except pa.ArrowException as error:
        raise InvalidInputError(f"{path}: as_of: found {column.type}, expected a time") from error
    if times.null_count:
        raise InvalidInputError(f"{path}: as_of: found a null")
    found: np.ndarray[Any, np.dtype[np.int64]] = times.cast(pa.int64()).to_numpy()
    return found
