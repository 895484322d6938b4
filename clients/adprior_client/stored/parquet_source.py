"""Stored forecasts, for when the live one does not come: made by yesterday's bulk run, say."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from adprior_client._call.checks import check_number
from adprior_client._call.forking import Forked, begin_anew_in_children
from adprior_client.results import Forecast
from adprior_client.stored.parquet_files import (
    ForecastFiles,
    find_manifest,
    list_forecast_files,
    read_revision,
)
from adprior_client.stored.parquet_table import ParquetTable
from adprior_client.types import UserId

_log = logging.getLogger("adprior_client")
_RETRY_S: Final = 60.0
"""After so long, files that could not be read are tried again."""


class ParquetForecasts(Forked):
    """Forecasts in Parquet files, read into memory.

    The columns: ``user_id``, ``as_of`` (when it was made), ``advertiser_ids``, ``log_probs``,
    ``exact``, ``missing_mass``, ``bundle_id``; ``advertiser_names`` if there are any. A user's
    latest counts; rows without advertisers do not, nor do those that lie in the future by more than
    `forecast_time.CLOCK_SKEW`.

    Where a ``_manifest.json`` lists the files, as ``adprior bulk`` writes it, it is followed: once
    it is replaced, the new files are read in the background, and take the place of the old ones in
    one step. Both are in memory until then. Files that cannot be read change nothing.

    Args:
        path: A Parquet file, a directory of them (partitioned or not), or a manifest.
        refresh_s: The manifest is looked at so often, on a lookup.

    Raises:
        InvalidInputError: It is unreadable, a column is missing or of a wrong type
            (`parquet_columns`), or pyarrow is missing.
    """

    def __init__(self, path: str | Path, *, refresh_s: float = 1.0) -> None:
        self._path = Path(path)
        self._refresh_s = check_number(refresh_s, "refresh_s")
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        files = list_forecast_files(self._path)
        self._table = self._load(files)
        self._has_manifest = files.manifest is not None
        self._revision = files.revision
        self._look_at = time.monotonic() + self._refresh_s
        begin_anew_in_children(self)

    def _begin_anew(self) -> None:
        """See `Forked._begin_anew`: nobody is reading new files here."""
        self._lock = threading.Lock()
        self._reader = None

    def __len__(self) -> int:
        """How many users have a forecast."""
        return len(self._table)

    @property
    def from_future(self) -> int:
        """How many rows of the present files were refused, since they lie in the future."""
        return self._table.from_future

    def find(self, user_id: UserId) -> Forecast | None:
        """See `ForecastSource.find`; an id that is text does not match a number."""
        if self._has_manifest and time.monotonic() >= self._look_at:
            self._look()
        return self._table.find(user_id)

    def _load(self, files: ForecastFiles) -> ParquetTable:
        table = ParquetTable(self._path, files)
        if table.from_future:
            _log.warning(
                "adprior: stored forecasts at %s: %d rows lie in the future by the clock of this "
                "machine, and are not used",
                self._path,
                table.from_future,
            )
        return table

    def _look(self) -> None:
        """Have new files read if there are any, and nobody is at it."""
        with self._lock:
            if time.monotonic() < self._look_at:
                return
            self._look_at = time.monotonic() + self._refresh_s
            manifest = find_manifest(self._path)
            if manifest is None or read_revision(manifest) in {(), self._revision}:
                return
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(
                    target=self._read, name="adprior-parquet", daemon=True
                )
                self._reader.start()

    def _read(self) -> None:
        try:
            files: ForecastFiles = list_forecast_files(self._path)
            table = self._load(files)
        except Exception as error:  # noqa: BLE001  nobody waits for this thread
            _log.warning("adprior: new stored forecasts cannot be read: %s", error)
            self._look_at = time.monotonic() + _RETRY_S
            return
        self._table, self._revision = table, files.revision
