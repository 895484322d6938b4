"""``_manifest.json``: which files of an output directory are its table. Replaced in one step.

::

    OUTPUT/
      _manifest.json                                what readers look at
      shard-0007.parquet                            the same table, for other tools: see `visible`
      _versions/date=2024-06-01/shard=0007/VERSION-….forecasts
                                                    forecasts of that run, whole (Parquet)
      _dead_letters/date=2024-06-01/shard=0007/VERSION-….letters
                                                    who could not be forecast, and why (Parquet)
      _manifests/VERSION.json                       of the versions whose files are kept
      _runs/VERSION/                                a run that is not over: inputs split by user,
                                                    and a record of each shard that is done

A version names every user's latest forecast, those carried over included, so that a reader needs
no other. Files that no manifest names are leftovers of killed runs, and go with the next one.

Tools that read the directory as Parquet pass over names that begin with ``_`` or ``.``, and
patterns such as ``**/*.parquet`` over other endings: only the current table is called
``*.parquet``.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

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
        request: What was asked, inputs included: the same request makes no new version.
        date: The partition it wrote, ISO 8601.
        as_of: The run's time, ISO 8601 in UTC.
        made_at: When it was published, likewise.
        bundle_id: The bundle that made its new forecasts; carried ones name their own.
        top_k: Advertisers of a forecast, None for the bundle's number.
        shards: Parts that users are split into.
        files: Forecasts.
        dead_letters: Who could not be forecast.
        counts: Of users, by what became of them.
        format: Of this file.
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
            InvalidInputError: It is none of ours, or of a later format.
        """
        path = find_manifest(directory) if directory.is_dir() else None
        return None if path is None else cls.read(path)

    def publish(self, directory: Path) -> None:
        """Make this the version that readers see."""
        self.keep(directory)
        write_text_whole(directory / MANIFEST, self._to_text())

    def keep(self, directory: Path) -> None:
        """Note this version among those whose files stay."""
        (directory / KEPT).mkdir(exist_ok=True)
        write_text_whole(directory / KEPT / f"{self.version}.json", self._to_text())

    def files_of(self, shard: int) -> list[str]:
        """Return the paths of a shard's forecasts."""
        return [file.path for file in self.files if file.shard == shard]

    def _to_text(self) -> str:
        return to_json(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one manifest.

        Raises:
            InvalidInputError: It is none of ours, or of a later format.
        """
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


def drop_old_versions(directory: Path, current: Manifest, keep: int) -> None:
    """Delete what the newest ``keep`` versions do not name; the current one is always kept."""
    stored = sorted((directory / KEPT).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    others = [path for path in stored if path.stem != current.version]
    kept = [Manifest.read(path) for path in others[len(others) - keep + 1 :]] if keep > 1 else []
    for path in others[: len(others) - len(kept)]:
        path.unlink(missing_ok=True)
    named = {file.path for manifest in (*kept, current) for file in _all_files(manifest)}
    for parent in (VERSIONS, DEAD_LETTERS):
        for date in directory.glob(f"{parent}/date=*"):
            _drop_others(directory, date, named)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all, and outlives a power cut."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _all_files(manifest: Manifest) -> Sequence[DataFile]:
    return [*manifest.files, *manifest.dead_letters]


def _drop_others(directory: Path, date: Path, named: set[str]) -> None:
    for path in date.glob("shard=*/*"):
        if str(path.relative_to(directory)) not in named:
            path.unlink(missing_ok=True)
    for shard in [*date.glob("shard=*"), date]:
        if not any(shard.iterdir()):
            shard.rmdir()
