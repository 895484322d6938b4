"""Stored forecasts from Parquet files, such as those of the last bulk run."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from adprior_client.checks import check_number
from adprior_client.forking import Forked, begin_anew_in_children
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
"""Files that could not be read are tried again after this time."""


class ParquetForecasts(Forked):
    """Forecasts in Parquet files, read into memory.

    Columns: ``user_id``, ``as_of`` (when the forecast was made), ``advertiser_ids``, ``log_probs``,
    ``exact``, ``missing_mass``, ``bundle_id``, and optionally ``advertiser_names``. A user's latest
    forecast is used. Rows without advertisers, and rows more than 5 minutes in the future, are
    ignored.

    If a ``_manifest.json`` lists the files, as ``adprior bulk`` writes it, the source follows it:
    when it is replaced, the new files are read in the background and replace the old ones in one
    step. Both are in memory until then. Files that cannot be read change nothing.

    Args:
        path: A Parquet file, a directory of them (partitioned or not), or a manifest.
        refresh_s: Shortest time between two looks at the manifest; lookups trigger them.

    Raises:
        InvalidInputError: The files are unreadable, a column is missing or has a wrong type, or
            pyarrow is missing.
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
        self._check_at = time.monotonic() + self._refresh_s
        begin_anew_in_children(self)

    def _begin_anew(self) -> None:
        """See `Forked._begin_anew`: the child has no thread that reads new files."""
        self._lock = threading.Lock()
        self._reader = None

    def __len__(self) -> int:
        """The number of users with a forecast."""
        return len(self._table)

    @property
    def from_future(self) -> int:
        """The number of rows that are ignored because they are in the future."""
        return self._table.from_future

    def find(self, user_id: UserId) -> Forecast | None:
        """See `ForecastSource.find`; a text id does not match a number."""
        if self._has_manifest and time.monotonic() >= self._check_at:
            self._check_manifest()
        return self._table.find(user_id)

    def _load(self, files: ForecastFiles) -> ParquetTable:
        table = ParquetTable(self._path, files)
        if table.from_future:
            _log.warning(
                "adprior: stored forecasts at %s: %d rows lie in the future by the clock of this "
                "machine and are ignored",
                self._path,
                table.from_future,
            )
        return table

    def _check_manifest(self) -> None:
        """Start reading new files if there are any and no thread reads them yet."""
        with self._lock:
            if time.monotonic() < self._check_at:
                return
            self._check_at = time.monotonic() + self._refresh_s
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
        except Exception as error:  # noqa: BLE001  no caller sees this thread's errors
            _log.warning("adprior: new stored forecasts cannot be read: %s", error)
            self._check_at = time.monotonic() + _RETRY_S
            return
        self._table, self._revision = table, files.revision
