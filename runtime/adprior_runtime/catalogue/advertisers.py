"""The catalogue's advertisers, as flat arrays that are mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.arrays import load_arrays, save_arrays
from adprior_runtime.errors import ArtefactError


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisers:
    """Advertisers by row, ordered by id.

    Attributes:
        ids: int64 [a], rising.
        log_popularity: float32 [a], log of the smoothed share of training events.
        path_counts: int32 [a], names and aliases with different tokens.
        name_bytes: uint8, the names' UTF-8 one after another.
        name_offsets: int64 [a + 1] into ``name_bytes``.
    """

    ids: npt.NDArray[np.int64]
    log_popularity: npt.NDArray[np.float32]
    path_counts: npt.NDArray[np.int32]
    name_bytes: npt.NDArray[np.uint8]
    name_offsets: npt.NDArray[np.int64]

    @classmethod
    def build(
        cls,
        ids: Sequence[int],
        names: Sequence[str],
        path_counts: Sequence[int],
        event_counts: Sequence[int],
    ) -> Advertisers:
        """Build from rows ordered by id; each advertiser counts one event more (Laplace's rule)."""
        encoded = [name.encode("utf-8") for name in names]
        counts = np.asarray(event_counts, dtype=np.float64) + 1
        return cls(
            ids=np.asarray(ids, dtype=np.int64),
            log_popularity=np.log(counts / counts.sum()).astype(np.float32),
            path_counts=np.asarray(path_counts, dtype=np.int32),
            name_bytes=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            name_offsets=np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        )

    def name(self, row: int) -> bytes:
        """Return the UTF-8 name of an advertiser."""
        return self.name_bytes[self.name_offsets[row] : self.name_offsets[row + 1]].tobytes()

    def rows_of(self, advertiser_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row of each id: int64 [n], -1 where it is not in the catalogue."""
        rows = np.searchsorted(self.ids, advertiser_ids)
        rows = np.minimum(rows, len(self.ids) - 1)
        return np.where(self.ids[rows] == advertiser_ids, rows, -1)

    def save(self, directory: Path) -> None:
        """Write each array as one ``.npy`` file into an existing directory."""
        save_arrays(directory, {item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, directory: Path) -> Advertisers:
        """Map the arrays of ``directory`` into memory.

        Raises:
            ArtefactError: A file is missing, or the arrays do not fit each other.
        """
        names = [item.name for item in fields(cls)]
        table = cls(**load_arrays(directory, names, "a table of advertisers"))
        count = len(table.ids)
        sizes = (len(table.log_popularity), len(table.path_counts), len(table.name_offsets) - 1)
        if sizes != (count, count, count) or table.name_offsets[-1] != len(table.name_bytes):
            raise ArtefactError(f"{directory}: the arrays do not fit each other: {sizes}")
        return table
