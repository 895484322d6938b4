from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.catalogue.catalogue_file import Catalogue, derive_catalogue, read_catalogue
from adprior_build.data.event_log import UserHistory
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.text.normalisation import normalise_text

Write = Callable[[dict[str, Any]], Path]

TERMINATOR = 256
SHELVES: dict[str, Any] = {
    "advertiser_id": [30, 10, 20],
    "name": ["Cobalt", "Acme", "麦穗"],
    "aliases": ["Cobalt Inc| Cobalt Ltd ||", None, " "],
    "tier": ["gold", "iron", "tin"],
}


def name_ids(name: str) -> list[int]:
    return [*name.encode(), TERMINATOR]


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Write columns as a catalogue in either format."""

    def run(columns: dict[str, Any]) -> Path:
        path = tmp_path / f"catalogue.{request.param}"
        if request.param == "csv":
            pa.csv.write_csv(pa.table(columns), path)
        else:
            pa.parquet.write_table(pa.table(columns), path)
        return path

    return run


def write_parquet(directory: Path, columns: dict[str, Any]) -> Path:
    path = directory / "catalogue.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


def write_lines(directory: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = directory / "catalogue.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_catalogue(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def of_names(tmp_path: Path, *names: str, aliases: list[str] | None = None) -> Catalogue:
    columns: dict[str, Any] = {"advertiser_id": list(range(len(names))), "name": list(names)}
    if aliases is not None:
        columns["aliases"] = aliases
    return read_catalogue(write_parquet(tmp_path, columns))


def user(user_id: str, *advertisers: str | None) -> UserHistory:
    events = [
        Event(time=datetime(2024, 5, 1, tzinfo=UTC), action="visit", advertiser=advertiser)
        for advertiser in advertisers
    ]
    return UserHistory(user_id=user_id, events=events)


def test_a_catalogue_is_ordered_by_id_and_keeps_other_columns(write: Write) -> None:
    path = write(SHELVES)
    catalogue = read_catalogue(path)
    assert catalogue.ids == (10, 20, 30)
    assert catalogue.names == ("Acme", "麦穗", "Cobalt")
    assert catalogue.aliases == ((), (), ("Cobalt Inc", "Cobalt Ltd"))
    assert catalogue.table["tier"].to_pylist() == ["iron", "tin", "gold"]
    assert catalogue.table["advertiser_id"].to_pylist() == [10, 20, 30]
    assert catalogue.source == path
    assert catalogue.source_rows == (1, 2, 0)


def test_a_catalogue_without_aliases_has_none(write: Write) -> None:
    path = write({"advertiser_id": [1, 2], "name": ["Acme", "Kite"]})
    assert read_catalogue(path).aliases == ((), ())


@pytest.mark.parametrize(
    "ids",
    [
        *(pa.array([7, 8], kind) for kind in (pa.int8(), pa.int32(), pa.uint32(), pa.uint64())),
        pa.array([-(2**63), 2**63 - 1]),
        pa.array([-1, 0]),
    ],
    ids=str,
)
def test_ids_of_any_integer_type_become_int64(tmp_path: Path, ids: pa.Array) -> None:
    columns = {"advertiser_id": ids, "name": ["Acme", "Kite"]}
    catalogue = read_catalogue(write_parquet(tmp_path, columns))
    assert catalogue.ids == tuple(ids.to_pylist())
    assert catalogue.table["advertiser_id"].type == pa.int64()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        *(
            (ids, r"advertiser_id holds \w+, expected int64")
            for ids in ([1.5, 2.0], ["a", "b"], [True, False], ["1", "x"])
        ),
        (pa.array([1, 2**63], pa.uint64()), "advertiser_id "),
        ([1, None], r"row 1 \(from 0\) has no advertiser_id"),
        ([4, 4], r"row 1 \(from 0\) repeats advertiser_id 4 of row 0"),
    ],
)
def test_wrong_ids_are_refused(write: Write, ids: Any, message: str) -> None:
    assert re.search(message, refusal(write({"advertiser_id": ids, "name": ["Acme", "Kite"]})))


@pytest.mark.parametrize("name", ["", "  ", "\t\u00a0", "\u200b", " \ufeff\u3164", None])
def test_an_empty_name_is_refused(write: Write, name: str | None) -> None:
    message = refusal(write({"advertiser_id": [2, 1], "name": ["Acme", name]}))
    assert "row 1 (from 0) has an empty name" in message


def test_aliases_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    aliases = pa.array([b"Caf\xe9", None], pa.binary()).view(pa.string())
    columns = {"advertiser_id": [1, 2], "name": ["Acme", "Kite"], "aliases": aliases}
    message = refusal(write_parquet(tmp_path, columns)).replace(" (from 0)", "")
    assert "row 0 has a aliases that is not UTF-8" in message


@pytest.mark.parametrize("name", ["365", "007", "NA", "null", "true", "1e3", "2024-05-31"])
def test_names_that_look_like_other_types_are_text(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path, "advertiser_id,name,aliases", f"1,{name},{name}0")
    catalogue = read_catalogue(path)
    assert catalogue.names == (name,)
    assert catalogue.aliases == ((f"{name}0",),)


@pytest.mark.parametrize("column", ["name", "aliases"])
def test_a_parquet_column_of_numbers_is_no_text(tmp_path: Path, column: str) -> None:
    columns = {"advertiser_id": [1], "name": ["Acme"], "aliases": ["A"]} | {column: [365]}
    assert f"column {column} holds int64, expected text" in refusal(
        write_parquet(tmp_path, columns)
    )


def test_a_catalogue_without_rows_is_refused(write: Write) -> None:
    columns = {"advertiser_id": pa.array([], pa.int64()), "name": pa.array([], pa.string())}
    assert "no advertisers" in refusal(write(columns))


def test_names_win_over_aliases_of_the_same_text(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Acme  Pets", "Kite", aliases=["Kite|Pets\tCo", ""])
    row_of = catalogue.rows_by_name()
    texts = ("Acme Pets", "Kite", "Pets Co", "Pe\u200bts\u00a0Co", "Acme", "")
    assert [row_of(text) for text in texts] == [0, 1, 0, 0, None, None]


def test_names_with_the_same_tokens_are_equal(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Acme", "Kite", aliases=["ACME CO", ""])
    row_of = catalogue.rows_by_name(lambda name: name_ids(name.lower()))
    assert [row_of(text) for text in ("acme", "KITE", "Acme Co", "moss")] == [0, 1, 0, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Nestl\u00e9", "Nestle\u0301"),
        ("Nestl\u00e9", "Nest\u200bl\u00e9"),
        ("Acme Pets", "\ufeffAcme\u00a0 Pets"),
        ("Acme", "Acme"),
    ],
)
def test_two_advertisers_with_one_name_are_refused(write: Write, one: str, other: str) -> None:
    message = refusal(write({"advertiser_id": [3, 2, 1], "name": [one, "Kite", other]}))
    assert "rows 0 and 2 (from 0), advertisers " in message
    assert "have the same name" in message


def test_an_alias_that_is_another_advertisers_name_is_refused(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Nestl\u00e9", "Kite", aliases=["", "A|Nestle\u0301"])
    with pytest.raises(InvalidInputError) as caught:
        catalogue.build_trie(lambda name: name_ids(normalise_text(name)))
    assert "rows 0 and 1 (from 0), advertisers 0 (" in str(caught.value)
    assert "have the same name" in str(caught.value)


def test_names_that_differ_only_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    names = ["x" * 80 + "a", "x" * 80 + "b"]
    catalogue = of_names(tmp_path, *names)
    with pytest.raises(InvalidInputError) as caught:
        catalogue.check_lengths(64)
    message = str(caught.value)
    assert "rows 0 and 1 (from 0)" in message
    assert "the same in their first 64 characters" in message
    assert "max_field_chars" in message


def test_names_longer_than_the_limit_are_reported(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Acme", "y" * 70, "z" * 81, aliases=["w" * 65, "", ""])
    note = catalogue.check_lengths(64)
    assert note is not None
    assert "advertisers with a name longer than 64 characters: 3;" in note
    assert "max_field_chars" in note
    assert "row 2 (from 0), 81 characters" in note
    assert catalogue.check_lengths(81) is None


def test_the_trie_spells_names_and_aliases(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Acme", "Acme Pets", aliases=["", "Pets|Acme P"])
    trie, path_counts = catalogue.build_trie(name_ids)
    assert path_counts == [1, 3]
    names = ("Acme", "Acme Pets", "Pets", "Acme P")
    assert [trie.lookup(name_ids(name)) for name in names] == [0, 1, 1, 1]
    assert trie.lookup(name_ids("Acme P")[:-1]) == -1
    assert trie.lookup(name_ids("Kite")) == -1


def test_an_alias_equal_to_its_own_name_is_counted_once(tmp_path: Path) -> None:
    catalogue = of_names(tmp_path, "Acme", "Kite", aliases=["Acme|A|A", ""])
    _, path_counts = catalogue.build_trie(name_ids)
    assert path_counts == [2, 1]


def test_two_advertisers_with_the_same_tokens_are_refused(write: Write) -> None:
    columns = {
        "advertiser_id": [30, 20, 10],
        "name": ["Acme", "Kite", "Moss"],
        "aliases": ["", "", "acme|Nori"],
    }
    catalogue = read_catalogue(write(columns))
    with pytest.raises(InvalidInputError) as caught:
        catalogue.build_trie(lambda name: name_ids(name.lower()))
    assert str(caught.value) == (
        f"{catalogue.source}: rows 0 and 2 (from 0), advertisers 10 ('acme') and 30 ('Acme'), "
        "have names of the same tokens"
    )


@pytest.mark.parametrize(
    "changed",
    [{"advertiser_id": [31, 10, 20]}, {"name": ["Cobalt", "Acme", "麦 穗"]}, {"aliases": [""] * 3}],
)
def test_ids_names_and_aliases_change_the_fingerprint(
    write: Write, changed: dict[str, Any]
) -> None:
    before = read_catalogue(write(SHELVES)).fingerprint
    assert read_catalogue(write(SHELVES | changed)).fingerprint != before


def test_other_columns_and_the_order_of_rows_do_not_change_the_fingerprint(write: Write) -> None:
    before = read_catalogue(write(SHELVES)).fingerprint
    turned = {name: values[::-1] for name, values in SHELVES.items()}
    assert read_catalogue(write(turned | {"tier": [1, 2, 3], "more": [0.5] * 3})).fingerprint == (
        before
    )


@given(
    rows=st.dictionaries(
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(normalise_text),
        min_size=1,
        max_size=20,
    ).filter(lambda rows: len({normalise_text(name) for name in rows.values()}) == len(rows))
)
def test_any_names_come_back_from_parquet_and_from_the_trie(rows: dict[int, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write_parquet(
            Path(directory), {"advertiser_id": list(rows), "name": list(rows.values())}
        )
        catalogue = read_catalogue(path)
    assert dict(zip(catalogue.ids, catalogue.names, strict=True)) == {
        advertiser_id: name.strip() for advertiser_id, name in rows.items()
    }
    assert list(catalogue.ids) == sorted(rows)
    trie, path_counts = catalogue.build_trie(name_ids)
    assert path_counts == [1] * len(rows)
    assert [trie.lookup(name_ids(name)) for name in catalogue.names] == list(range(len(rows)))


def test_advertisers_with_enough_users_are_derived_the_most_frequent_first() -> None:
    users = [
        user("a", "Kite", "Kite", "Moss", None),
        user("b", "Acme", "Moss", "Rare"),
        user("c", "Acme", "Moss", "Kite"),
        user("d", "Once"),
    ]
    assert derive_catalogue(users, 2).to_pydict() == {
        "advertiser_id": [1, 2, 3],
        "name": ["Moss", "Acme", "Kite"],
    }


@pytest.mark.parametrize(
    "spellings",
    [
        ("Acme Pets", "Acme  Pets", "Acme\u00a0Pets"),
        ("Nestl\u00e9", "Nestle\u0301", "Nest\u200bl\u00e9"),
    ],
)
def test_spellings_of_one_name_derive_one_advertiser(spellings: Sequence[str]) -> None:
    users = [user(str(index), name, "\u200b", " ") for index, name in enumerate(spellings)]
    assert derive_catalogue(users, 3)["name"].to_pylist() == [spellings[0]]


def test_a_log_of_rare_advertisers_derives_no_catalogue() -> None:
    assert derive_catalogue([user("a", "Acme"), user("b", "Kite")], 2).to_pydict() == {
        "advertiser_id": [],
        "name": [],
    }


@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_names_may_be_of_any_storage_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["Kite", "Acme"]).cast(kind)
    ids = pa.array([2, 1], pa.int64()).dictionary_encode()
    columns = {"advertiser_id": ids, "name": texts, "aliases": pa.nulls(2), "note": texts}
    catalogue = read_catalogue(write_parquet(tmp_path, columns))
    assert (catalogue.ids, catalogue.names) == ((1, 2), ("Acme", "Kite"))
    assert catalogue.aliases == ((), ())
    assert catalogue.table["note"].to_pylist() == ["Acme", "Kite"]
