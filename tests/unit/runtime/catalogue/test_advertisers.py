from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.catalogue.advertisers import Advertisers

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
def test_names_are_read_back(table: list[tuple[int, str, int, int]]) -> None:
    advertisers = _build(table)
    found = [advertisers.name(row).decode() for row in range(len(table))]
    assert found == [name for _, name, _, _ in table]


@given(rows(), st.lists(INT64 | st.integers(-1, 21)))
def test_known_ids_have_rows_and_unknown_ones_have_none(
    table: list[tuple[int, str, int, int]], others: list[int]
) -> None:
    known = [row[0] for row in table]
    asked = np.array([*others, *reversed(known)], dtype=np.int64)
    expected = [known.index(key) if key in known else -1 for key in asked.tolist()]
    assert _build(table).rows_of(asked).tolist() == expected


def test_no_ids_have_no_rows() -> None:
    assert _small().rows_of(np.zeros(0, dtype=np.int64)).tolist() == []


def test_every_advertiser_counts_one_event_more() -> None:
    expected = np.log([3 / 10, 1 / 10, 6 / 10])
    np.testing.assert_allclose(_small().log_popularity, expected, rtol=1e-6)


@given(rows())
def test_shares_sum_to_one_and_are_never_zero(table: list[tuple[int, str, int, int]]) -> None:
    log_popularity = _build(table).log_popularity
    assert np.isfinite(log_popularity).all()
    assert math.isclose(np.exp(log_popularity.astype(np.float64)).sum(), 1, rel_tol=1e-5)
