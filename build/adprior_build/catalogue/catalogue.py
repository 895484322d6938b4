"""The advertiser catalogue: reading it, refusing what cannot be served, turning it into a trie."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.event_log import UserHistory
from adprior_build.data.tables import read_table
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.spelling import even_out


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

    def rows_by_name(
        self, name_ids: Callable[[str], Sequence[int]] | None = None
    ) -> Callable[[str], int | None]:
        """Return a function from a name or alias to its advertiser's row; names win.

        Args:
            name_ids: Tokenises a name. Names of the same tokens are then the same, as they are to
                the model; without it, names that are spelt the same once evened out.
        """

        def key(name: str) -> Hashable:
            return even_out(name) if name_ids is None else tuple(name_ids(name))

        rows = {key(alias): row for row, group in enumerate(self.aliases) for alias in group}
        rows.update({key(name): row for row, name in enumerate(self.names)})
        return cache(lambda name: rows.get(key(name)))

    def check_repeats(self) -> None:
        """Refuse two advertisers of the same name.

        Raises:
            InvalidInputError: Naming the rows.
        """
        seen: dict[str, int] = {}
        for row, name in enumerate(self.names):
            other = seen.setdefault(even_out(name), row)
            if other != row:
                raise self._same_names((other, self.names[other]), (row, name))

    def check_lengths(self, max_chars: int) -> str | None:
        """Refuse names that a template's cut makes the same.

        Args:
            max_chars: The template's ``max_field_chars``.

        Returns:
            One line about the names that are cut, None where there are none.

        Raises:
            InvalidInputError: Naming the rows and the limit.
        """
        seen: dict[str, tuple[int, str]] = {}
        long: dict[int, int] = {}
        for row, text in self._texts():
            shown = even_out(text)
            if len(shown) > max_chars:
                long[row] = max(long.get(row, 0), len(shown))
            other, same = seen.setdefault(shown[:max_chars], (row, text))
            if other != row:
                raise self._same_names((other, same), (row, text), max_chars=max_chars)
        if not long:
            return None
        row = max(long, key=long.__getitem__)
        return (
            f"{self.source}: advertisers with a name longer than {max_chars} characters: "
            f"{len(long)}; the model reads no more of it (max_field_chars of the prompt template); "
            f"the longest is in row {self.source_rows[row]} (from 0), {long[row]} characters"
        )

    def build_trie(self, name_ids: Callable[[str], list[int]]) -> tuple[Trie, list[int]]:
        """Tokenise names and aliases into a trie.

        Returns:
            The trie, and how many paths lead to each advertiser.

        Raises:
            InvalidInputError: Two advertisers have a name of the same tokens.
        """
        rows: dict[tuple[int, ...], int] = {}
        path_counts = [0] * len(self.ids)
        for row, text in self._texts():
            path = tuple(name_ids(text))
            other = rows.setdefault(path, row)
            if other != row:
                theirs = (self.names[other], *self.aliases[other])
                same = next(each for each in theirs if tuple(name_ids(each)) == path)
                raise self._same_names((other, same), (row, text))
        for row in rows.values():
            path_counts[row] += 1
        return Trie.build(list(rows), list(rows.values())), path_counts

    def _texts(self) -> Iterator[tuple[int, str]]:
        """Yield every name and alias with its advertiser's row."""
        for row, (name, aliases) in enumerate(zip(self.names, self.aliases, strict=True)):
            yield from ((row, text) for text in (name, *aliases))

    def _same_names(
        self, one: tuple[int, str], other: tuple[int, str], max_chars: int | None = None
    ) -> InvalidInputError:
        """Return the error of two advertisers, each a row and a name, that read the same."""
        places = sorted(self.source_rows[row] for row, _ in (one, other))
        named = " and ".join(f"{self.ids[row]} ({text!r})" for row, text in (one, other))
        if even_out(one[1]) == even_out(other[1]):
            why = (
                "have the same name: white space, unseen characters and Unicode's forms do not "
                "count"
            )
        elif max_chars is not None:
            why = (
                f"have names that are the same in their first {max_chars} characters; the model "
                "reads no more: raise max_field_chars of the prompt template (--template)"
            )
        else:
            why = "have names of the same tokens"
        return InvalidInputError(
            f"{self.source}: rows {places[0]} and {places[1]} (from 0), advertisers {named}, {why}"
        )


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue from CSV or Parquet: ``advertiser_id``, ``name``, optional ``aliases``.

    ``aliases`` are separated by ``|``. Other columns are kept.

    Raises:
        InvalidInputError: Naming the row: a null, fractional or repeated id, an empty or a
            repeated name.
    """
    return catalogue_of(read_table(path, ["advertiser_id", "name"], text=["name", "aliases"]), path)


def catalogue_of(table: pa.Table, path: Path) -> Catalogue:
    """Make a catalogue of a table that is, or will be, in a file; see `read_catalogue`."""
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
    catalogue = Catalogue(
        ids=tuple(table["advertiser_id"].to_pylist()),
        names=tuple(str(name).strip() for name in table["name"].to_pylist()),
        aliases=tuple(
            tuple(part.strip() for part in (aliases[row] or "").split("|") if even_out(part))
            if aliases
            else ()
            for row in range(table.num_rows)
        ),
        table=table,
        source=path,
        source_rows=tuple(order.to_pylist()),
    )
    catalogue.check_repeats()
    return catalogue


def derive_catalogue(users: Sequence[UserHistory], min_users: int) -> pa.Table:
    """List the advertisers that at least ``min_users`` users acted on, the most frequent first.

    Ids count from 1. Names that differ in nothing but white space, unseen characters and the forms
    of Unicode are one.
    """
    counts: Counter[str] = Counter()
    for user in users:
        counts.update({even_out(event.advertiser) for event in user.events if event.advertiser})
    del counts[""]
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
        if value is None or not even_out(str(value)):
            raise InvalidInputError(f"{path}: row {row} (from 0) has an empty name")
