"""The advertiser catalogue: reading it, refusing what cannot be served, turning it into a trie."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.event_log import UserHistory
from adprior_build.tables import read_table
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.trie import Trie

__all__ = ["Catalogue", "derive_catalogue", "even_out", "read_catalogue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Advertisers, ordered by id.

    Attributes:
        ids: Unique int64 ids.
        names: One name each.
        aliases: Other names each goes by.
        table: All columns, in the same order.
        source: The file, for error messages.
        source_rows: Where in it each advertiser stands, counted from 0.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    table: pa.Table
    source: Path
    source_rows: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of ids, names and aliases; other columns do not change it."""
        digest = hashlib.sha256()
        for row in zip(self.ids, self.names, self.aliases, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()[:16]

    def row_by_name(self) -> dict[str, int]:
        """Map every name and alias, spaces evened out, to its advertiser's row; names win."""
        rows = {even_out(alias): row for row, group in enumerate(self.aliases) for alias in group}
        rows.update({even_out(name): row for row, name in enumerate(self.names)})
        return rows

    def build_trie(self, name_ids: Callable[[str], list[int]]) -> tuple[Trie, list[int]]:
        """Tokenise names and aliases into a trie.

        Returns:
            The trie, and how many paths lead to each advertiser.

        Raises:
            InvalidInputError: Two advertisers have a name of the same tokens.
        """
        rows: dict[tuple[int, ...], int] = {}
        path_counts = [0] * len(self.ids)
        for row, (name, aliases) in enumerate(zip(self.names, self.aliases, strict=True)):
            for text in (name, *aliases):
                path = tuple(name_ids(text))
                other = rows.setdefault(path, row)
                if other != row:
                    first, second = sorted((self.source_rows[other], self.source_rows[row]))
                    raise InvalidInputError(
                        f"{self.source}: rows {first} and {second} (from 0), advertisers "
                        f"{self.ids[other]} ({self.names[other]!r}) and {self.ids[row]} "
                        f"({text!r}), have names of the same tokens"
                    )
        for row in rows.values():
            path_counts[row] += 1
        return Trie.build(list(rows), list(rows.values())), path_counts


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue from CSV or Parquet: ``advertiser_id``, ``name``, optional ``aliases``.

    ``aliases`` are separated by ``|``. Other columns are kept.

    Raises:
        InvalidInputError: Naming the row: a null, fractional or repeated id, an empty name.
    """
    table = read_table(path, ["advertiser_id", "name"], text=["name", "aliases"])
    if table.num_rows == 0:
        raise InvalidInputError(f"{path}: no advertisers")
    if not pa.types.is_integer(table["advertiser_id"].type):
        found = table["advertiser_id"].type
        raise InvalidInputError(f"{path}: advertiser_id holds {found}, expected int64")
    try:
        ids = table["advertiser_id"].cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{path}: advertiser_id does not fit int64: {error}") from error
    table = table.set_column(table.column_names.index("advertiser_id"), "advertiser_id", ids)
    _check_ids(path, table["advertiser_id"].to_pylist())
    _check_texts(path, table)
    order = pc.sort_indices(table["advertiser_id"])
    table = table.take(order)
    aliases = table["aliases"].to_pylist() if "aliases" in table.column_names else []
    return Catalogue(
        ids=tuple(table["advertiser_id"].to_pylist()),
        names=tuple(str(name).strip() for name in table["name"].to_pylist()),
        aliases=tuple(
            tuple(part.strip() for part in (aliases[row] or "").split("|") if part.strip())
            if aliases
            else ()
            for row in range(table.num_rows)
        ),
        table=table,
        source=path,
        source_rows=tuple(order.to_pylist()),
    )


def even_out(name: str) -> str:
    """Return a name with one kind of space and none at its ends, as the tokenizer sees it."""
    return " ".join(name.split())


def derive_catalogue(users: Sequence[UserHistory], min_users: int) -> pa.Table:
    """List the advertisers that at least ``min_users`` users acted on, the most frequent first.

    Ids count from 1. Names that differ in nothing but spaces are one.
    """
    counts: Counter[str] = Counter()
    for user in users:
        counts.update({even_out(event.advertiser) for event in user.events if event.advertiser})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = [name for name, count in ranked if count >= min_users]
    ids = range(1, len(names) + 1)
    return pa.table(
        {"advertiser_id": pa.array(ids, pa.int64()), "name": pa.array(names, pa.string())}
    )


def _check_ids(path: Path, ids: list[int | None]) -> None:
    seen: dict[int, int] = {}
    for row, advertiser_id in enumerate(ids):
        if advertiser_id is None:
            raise InvalidInputError(f"{path}: row {row} (from 0) has no advertiser_id")
        if advertiser_id in seen:
            raise InvalidInputError(
                f"{path}: row {row} (from 0) repeats advertiser_id {advertiser_id} "
                f"of row {seen[advertiser_id]}"
            )
        seen[advertiser_id] = row


def _check_texts(path: Path, table: pa.Table) -> None:
    for name in {"name", "aliases"}.intersection(table.column_names):
        kind = table[name].type
        if not (pa.types.is_string(kind) or pa.types.is_null(kind)):
            raise InvalidInputError(f"{path}: column {name} holds {kind}, expected text")
    for row, value in enumerate(table["name"].to_pylist()):
        if value is None or not str(value).strip():
            raise InvalidInputError(f"{path}: row {row} (from 0) has an empty name")
