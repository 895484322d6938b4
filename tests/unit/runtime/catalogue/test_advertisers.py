from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import ArtefactError

ARRAYS = ("ids", "log_popularity", "path_counts", "name_bytes", "name_offsets")
INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[int, str, int, int]]:
    """Draw (id, name, paths, events) by rising id."""
    ids = sorted(draw(st.sets(INT64 | st.integers(0, 20), min_size=1, max_size=20)))
    rest = st.tuples(NAMES, st.integers(1, 5), st.integers(0, 10**9))
    return [(key, *draw(rest)) for key in ids]


def _build(table: list[tuple[int, str, int, int]]) -> Advertisers:
    ids, names, path_counts, event_counts = zip(*table, strict=True)
    return Advertisers.build(ids, names, path_counts, event_counts)


def _small() -> Advertisers:
    return _build([(10, "Acme", 1, 2), (20, "Zéphyr", 3, 0), (30, "麦穗", 1, 5)])


@given(rows())
def test_names_come_back_as_they_went_in(table: list[tuple[int, str, int, int]]) -> None:
    advertisers = _build(table)
    found = [advertisers.name(row).decode() for row in range(len(table))]
    assert found == [name for _, name, _, _ in table]


def test_names_are_utf8() -> None:
    assert [_small().name(row) for row in range(3)] == [b"Acme", b"Z\xc3\xa9phyr", "麦穗".encode()]


@given(rows(), st.lists(INT64 | st.integers(-1, 21)))
def test_a_known_id_has_its_row_and_an_unknown_one_none(
    table: list[tuple[int, str, int, int]], others: list[int]
) -> None:
    known = [row[0] for row in table]
    asked = np.array([*others, *reversed(known)], dtype=np.int64)
    expected = [known.index(key) if key in known else -1 for key in asked.tolist()]
    assert _build(table).rows_of(asked).tolist() == expected


def test_ids_below_between_and_above_are_unknown() -> None:
    asked = np.array([-(2**63), 9, 10, 15, 20, 20, 29, 30, 31, 2**63 - 1])
    expected = [-1, -1, 0, -1, 1, 1, -1, 2, -1, -1]
    assert _small().rows_of(asked).tolist() == expected


def test_no_ids_have_no_rows() -> None:
    assert _small().rows_of(np.zeros(0, dtype=np.int64)).tolist() == []


def test_every_advertiser_gets_one_event_more() -> None:
    expected = np.log([3 / 10, 1 / 10, 6 / 10])
    np.testing.assert_allclose(_small().log_popularity, expected, rtol=1e-6)


@given(rows())
def test_shares_sum_to_one_and_are_never_zero(table: list[tuple[int, str, int, int]]) -> None:
    log_popularity = _build(table).log_popularity
    assert np.isfinite(log_popularity).all()
    assert math.isclose(np.exp(log_popularity.astype(np.float64)).sum(), 1, rel_tol=1e-5)


@given(rows())
def test_types_are_those_of_the_layout(table: list[tuple[int, str, int, int]]) -> None:
    advertisers = _build(table)
    found = [getattr(advertisers, name).dtype.name for name in ARRAYS]
    assert found == ["int64", "float32", "int32", "uint8", "int64"]
    assert advertisers.path_counts.tolist() == [row[2] for row in table]


def test_a_table_survives_its_files_and_is_mapped(tmp_path: Path) -> None:
    _small().save(tmp_path)
    loaded = Advertisers.load(tmp_path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(_small(), name))
        assert _is_mapped(getattr(loaded, name))
    assert loaded.name(2).decode() == "麦穗"
    assert loaded.rows_of(np.array([20, 21])).tolist() == [1, -1]


def _is_mapped(array: npt.NDArray[Any]) -> bool:
    return isinstance(array, np.memmap) or isinstance(array.base, np.memmap)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    _small().save(tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(ArtefactError, match=name):
        Advertisers.load(tmp_path)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_truncated_file_is_refused(name: str, size: int, tmp_path: Path) -> None:
    _small().save(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtefactError, match="not a table of advertisers"):
        Advertisers.load(tmp_path)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("length", [0, 2, 5])
def test_arrays_that_do_not_fit_each_other_are_refused(
    name: str, length: int, tmp_path: Path
) -> None:
    _small().save(tmp_path)
    dtype = getattr(_small(), name).dtype
    np.save(tmp_path / f"{name}.npy", np.zeros(length, dtype=dtype))
    with pytest.raises(ArtefactError, match="do not fit each other"):
        Advertisers.load(tmp_path)
