"""The catalogue file: reading it, refusing advertisers that cannot be served, making its trie.

A catalogue of interests (categories, say) is the same with the column ``interest_id``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.event_log import UserHistory
from adprior_build.data.tables import read_table
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.template import in_words
from adprior_runtime.text.normalisation import normalise_text

Kind: TypeAlias = Literal["advertiser", "interest"]
"""The kind of a catalogue's entries; the column of their ids is named after it."""

MIN_USERS: Final = 3
"""By default, a catalogue lists the advertisers that at least this many users acted on."""

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Advertisers or interests, ordered by id.

    Attributes:
        kind: The kind of the entries.
        ids: Unique int64 ids.
        names: One name per advertiser.
        aliases: The advertiser's other names.
        table: All columns, in the same order.
        source: The file, for error messages.
        source_rows: Each advertiser's row in the file, counted from 0.
    """

    kind: Kind = "advertiser"
    ids: tuple[int, ...]
    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    table: pa.Table
    source: Path
    source_rows: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse two advertisers with the same name."""
        self._distinct(enumerate(self.names), normalise_text)

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
            name_ids: Tokenises a name; names with the same tokens are equal, as for the model.
                Without it, names with the same normalised spelling are equal.
        """

        def key(name: str) -> Hashable:
            return normalise_text(name) if name_ids is None else tuple(name_ids(name))

        rows = {key(alias): row for row, group in enumerate(self.aliases) for alias in group}
        rows.update({key(name): row for row, name in enumerate(self.names)})
        return cache(lambda name: rows.get(key(name)))

    def count_events(
        self, users: Sequence[UserHistory], name_ids: Callable[[str], Sequence[int]]
    ) -> list[int]:
        """Return the number of the users' events of each advertiser, with names by their tokens."""
        row_of = self.rows_by_name(name_ids)
        counts = Counter(row_of(event.advertiser or "") for user in users for event in user.events)
        return [counts[row] for row in range(len(self.ids))]

    def check_lengths(self, max_chars: int) -> str | None:
        """Refuse names that become equal when a template cuts them.

        Args:
            max_chars: The template's ``max_field_chars``.

        Returns:
            One line about the names that are cut, None if there are none.

        Raises:
            InvalidInputError: The message names the rows and the limit.
        """
        self._distinct(self._texts(), lambda text: normalise_text(text)[:max_chars], max_chars)
        long: dict[int, int] = {}
        for row, text in self._texts():
            if (length := len(normalise_text(text))) > max_chars:
                long[row] = max(long.get(row, 0), length)
        if not long:
            return None
        row = max(long, key=long.__getitem__)
        return (
            f"{self.source}: {self.kind}s with a name longer than {max_chars} characters: "
            f"{len(long)}; the model reads no more of it (max_field_chars of the prompt template); "
            f"the longest is in row {self.source_rows[row]} (from 0), {long[row]} characters"
        )

    def build_trie(self, name_ids: Callable[[str], list[int]]) -> tuple[Trie, list[int]]:
        """Tokenise names and aliases into a trie.

        Returns:
            The trie, and the number of paths to each advertiser.

        Raises:
            InvalidInputError: Two advertisers have names with the same tokens.
        """
        rows = self._distinct(self._texts(), lambda text: tuple(name_ids(text)))
        path_counts = Counter(rows.values())
        trie = Trie.build(list(rows), list(rows.values()))
        return trie, [path_counts[row] for row in range(len(self.ids))]

    def _texts(self) -> Iterator[tuple[int, str]]:
        """Yield every name and alias with its advertiser's row."""
        for row, (name, aliases) in enumerate(zip(self.names, self.aliases, strict=True)):
            yield from ((row, text) for text in (name, *aliases))

    def _distinct(
        self,
        texts: Iterable[tuple[int, str]],
        key: Callable[[str], _Key],
        max_chars: int | None = None,
    ) -> dict[_Key, int]:
        """Return the advertiser's row by key; refuse two advertisers with the same key."""
        seen: dict[_Key, tuple[int, str]] = {}
        for row, text in texts:
            other = seen.setdefault(key(text), (row, text))
            if other[0] != row:
                raise self._same_names(other, (row, text), max_chars=max_chars)
        return {found: row for found, (row, _) in seen.items()}

    def _same_names(
        self, one: tuple[int, str], other: tuple[int, str], max_chars: int | None = None
    ) -> InvalidInputError:
        """Return the error about two advertisers, each a row and a name, that read the same."""
        places = sorted(self.source_rows[row] for row, _ in (one, other))
        named = " and ".join(f"{self.ids[row]} ({text!r})" for row, text in (one, other))
        if normalise_text(one[1]) == normalise_text(other[1]):
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
            f"{self.source}: rows {places[0]} and {places[1]} (from 0), {self.kind}s {named}, {why}"
        )


def read_catalogue(path: Path, kind: Kind = "advertiser") -> Catalogue:
    """Read a catalogue from CSV or Parquet: ``advertiser_id``, ``name``, optional ``aliases``.

    ``aliases`` are separated by ``|``. Other columns are kept. Interests have ``interest_id``.

    Raises:
        InvalidInputError: An id is missing, fractional or repeated, or a name is empty or
            repeated; the message names the row.
    """
    table = read_table(path, [f"{kind}_id", "name"], text=["name", "aliases"])
    return catalogue_of(table, path, kind)


def catalogue_of(table: pa.Table, path: Path, kind: Kind = "advertiser") -> Catalogue:
    """Make a catalogue from a table of the file ``path``; see `read_catalogue`."""
    if table.num_rows == 0:
        raise InvalidInputError(f"{path}: no {kind}s")
    column = f"{kind}_id"
    found = table[column].type
    if not pa.types.is_integer(found):
        raise InvalidInputError(f"{path}: {column} holds {found}, expected int64")
    try:
        ids = table[column].cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{path}: {column} does not fit int64: {error}") from error
    table = table.set_column(table.column_names.index(column), column, ids)
    _check_ids(path, column, ids.to_pylist())
    _check_texts(path, table)
    order = pc.sort_indices(ids)
    table = table.take(order)
    has_aliases = "aliases" in table.column_names
    aliases = table["aliases"].to_pylist() if has_aliases else [None] * table.num_rows
    return Catalogue(
        kind=kind,
        ids=tuple(table[column].to_pylist()),
        names=tuple(str(name).strip() for name in table["name"].to_pylist()),
        aliases=tuple(
            tuple(part.strip() for part in (text or "").split("|") if normalise_text(part))
            for text in aliases
        ),
        table=table,
        source=path,
        source_rows=tuple(order.to_pylist()),
    )


def derive_catalogue(
    users: Sequence[UserHistory], min_users: int, kind: Kind = "advertiser"
) -> pa.Table:
    """List the advertisers that at least ``min_users`` users acted on, the most frequent first.

    Interests are the events' categories, in words. Ids count from 1. Names that differ only in
    white space, invisible characters or Unicode forms are one advertiser, or one interest.
    """
    ranked = sorted(_count_users(users, kind).items(), key=lambda item: (-item[1], item[0]))
    return _listed([name for name, count in ranked if count >= min_users], kind)


def with_newcomers(
    table: pa.Table, users: Sequence[UserHistory], everyone: Sequence[UserHistory]
) -> pa.Table:
    """Add newcomers: the advertisers of the whole log that none of ``users`` acted on, by name.

    Each advertiser gets a ``category``, the most frequent one of its events in the whole log, or
    nothing. It is an attribute of the advertiser, not of anybody who acted on it.

    Args:
        table: From `derive_catalogue`.
        users: The users with the events that it was derived from.
        everyone: All users with all events.
    """
    kind: Kind = "advertiser"
    newcomers = sorted(set(_count_users(everyone, kind)) - set(_count_users(users, kind)))
    found: dict[str, Counter[str]] = {}
    for user in everyone:
        for event in user.events:
            if event.advertiser and event.category:
                counts = found.setdefault(normalise_text(event.advertiser), Counter())
                counts[event.category] += 1
    names = [*table["name"].to_pylist(), *newcomers]
    category = {
        name: min(counts, key=lambda each: (-counts[each], each)) for name, counts in found.items()
    }
    categories = pa.array([category.get(name) for name in names], pa.string())
    return _listed(names, kind).append_column("category", categories)


def _count_users(users: Sequence[UserHistory], kind: Kind) -> Counter[str]:
    """Return the number of users who acted on each advertiser or interest, by normalised name."""
    counts: Counter[str] = Counter()
    for user in users:
        acted_on = (
            e.advertiser if kind == "advertiser" else in_words(e.category or "")
            for e in user.events
        )
        counts.update({normalise_text(name) for name in acted_on if name})
    del counts[""]
    return counts


def _listed(names: Sequence[str], kind: Kind) -> pa.Table:
    ids = pa.array(range(1, len(names) + 1), pa.int64())
    return pa.table({f"{kind}_id": ids, "name": pa.array(names, pa.string())})


def _check_ids(path: Path, column: str, ids: list[int | None]) -> None:
    seen: dict[int, int] = {}
    for row, value in enumerate(ids):
        if value is None:
            raise InvalidInputError(f"{path}: row {row} (from 0) has no {column}")
        if value in seen:
            raise InvalidInputError(
                f"{path}: row {row} (from 0) repeats {column} {value} of row {seen[value]}"
            )
        seen[value] = row


def _check_texts(path: Path, table: pa.Table) -> None:
    for name in {"name", "aliases"}.intersection(table.column_names):
        kind = table[name].type
        if not (pa.types.is_string(kind) or pa.types.is_null(kind)):
            raise InvalidInputError(f"{path}: column {name} holds {kind}, expected text")
    for row, value in enumerate(table["name"].to_pylist()):
        if value is None or not normalise_text(str(value)):
            raise InvalidInputError(f"{path}: row {row} (from 0) has an empty name")
