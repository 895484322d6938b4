"""``_manifest.json`` lists the files of an output directory's table. It is replaced in one step.

::

    OUTPUT/
      _manifest.json                                lists the current version's files, for readers
      shard-0007.parquet                            the same table, for other tools: see `directory`
      _versions/date=2024-06-01/shard=0007/VERSION-….forecasts
                                                    all forecasts of one run (Parquet)
      _dead_letters/date=2024-06-01/shard=0007/VERSION-….letters
                                                    users that were refused, and why (Parquet)
      _manifests/VERSION.json                       manifests of the versions whose files are kept
      _runs/VERSION/                                an unfinished run: inputs split by user, and a
                                                    record of each finished shard

A version lists the latest forecast of every user, including those carried over, so that a reader
needs no other version. Files that no manifest lists are leftovers of killed runs; the next run
deletes them.

Tools that read the directory as Parquet skip names that begin with ``_`` or ``.``. Only the current
table has names ending in ``.parquet``, so patterns such as ``**/*.parquet`` find nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from adprior_bulk.output.durable_files import write_durable_text
from adprior_client.stored.parquet_files import KEPT, MANIFEST, find_manifest
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

VERSIONS: Final = "_versions"
DEAD_LETTERS: Final = "_dead_letters"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A file of a version; ``path`` is relative to the manifest's directory."""

    path: str
    shard: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version of the table.

    Attributes:
        version: The run's id.
        request: Fingerprint of the inputs and options; the same request makes no new version.
        date: The partition it wrote, ISO 8601.
        as_of: The run's time, ISO 8601 in UTC.
        made_at: When it was published, ISO 8601 in UTC.
        bundle_id: The bundle of its new forecasts; carried forecasts have their own.
        top_k: Advertisers per forecast, None for the bundle's default.
        shards: Number of shards.
        files: Forecasts.
        dead_letters: Refused users.
        counts: Users, by outcome.
        format: Format of this file.
    """

    version: str
    request: str
    date: str
    as_of: str
    made_at: str
    bundle_id: str
    top_k: int | None
    shards: int
    files: tuple[DataFile, ...]
    dead_letters: tuple[DataFile, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read a directory's manifest; None where there is none.

        Raises:
            InvalidInputError: The file is not a manifest of this format.
        """
        path = find_manifest(directory) if directory.is_dir() else None
        return None if path is None else cls.read(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one manifest file; errors as in `load`."""
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if document.get("format") != FORMAT:
                raise InvalidInputError(
                    f"{path}: format {document.get('format')}, expected {FORMAT}: "
                    "not an output of adprior bulk, or of a later version"
                )
            known = {item.name for item in fields(cls)}
            document = {key: value for key, value in document.items() if key in known}
            for key in ("files", "dead_letters"):
                document[key] = tuple(DataFile(**item) for item in document[key])
            return cls(**document)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInputError(f"{path}: not a manifest of forecasts: {error}") from error

    def publish(self, directory: Path) -> None:
        """Make this the version that readers see, and keep a copy to which a user can return."""
        text = to_json(asdict(self), indent=1) + "\n"
        write_durable_text(directory / KEPT / f"{self.version}.json", text)
        write_durable_text(directory / MANIFEST, text)

    def files_of(self, shard: int) -> list[str]:
        """Return the paths of a shard's forecasts."""
        return [file.path for file in self.files if file.shard == shard]
