from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.training.batches import Batch, cut_into_batches
from adprior_build.training.windows import Window
from support.windows import make_window


def of_lengths(lengths: list[int]) -> list[Window]:
    return [make_window([row] * length, [1]) for row, length in enumerate(lengths)]


def rows(batches: list[list[Window]]) -> list[list[int]]:
    return [[int(window.token_ids[0]) for window in batch] for batch in batches]


@given(st.lists(st.integers(2, 9), max_size=50), st.integers(1, 7), st.integers(0, 3))
def test_every_window_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    batches = rows(cut_into_batches(of_lengths(lengths), size, (seed,)))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sum(len(batch) < size for batch in batches) <= 1


def test_a_batch_holds_windows_of_similar_length() -> None:
    assert rows(cut_into_batches(of_lengths([9, 2, 8, 3, 9, 2]), 2)) == [[1, 5], [3, 2], [0, 4]]


def test_windows_are_sorted_within_windows_only() -> None:
    lengths = np.random.default_rng(1).integers(2, 300, size=200).tolist()
    batches = cut_into_batches(of_lengths(lengths), 1)
    assert rows(batches[:64]) == [[row] for row in np.argsort(lengths[:64], kind="stable")]
    assert {row for (row,) in rows(batches[64:128])} == set(range(64, 128))


def test_the_seed_decides_the_order_of_batches() -> None:
    windows = of_lengths(list(range(2, 42)))
    first, same, other = (cut_into_batches(windows, 2, (7, epoch)) for epoch in (0, 0, 1))
    assert rows(first) == rows(same) != rows(other)
    assert sorted(rows(first)) == sorted(rows(other)) == sorted(rows(cut_into_batches(windows, 2)))


END = 9
WINDOWS = [
    make_window([1, 5, 6, END, 7, END, 2, 5, END], [1, 2, 3, 4, 5, 7, 8], {4, 5}, end=END),
    make_window([1, 2, 5, END], [2, 3], end=END),
]


def test_a_batch_is_padded_on_the_right() -> None:
    batch = Batch.of(WINDOWS)
    assert batch.ids.tolist() == [[1, 5, 6, 9, 7, 9, 2, 5, 9], [1, 2, 5, 9, 0, 0, 0, 0, 0]]
    assert batch.rows.tolist() == [0] * 7 + [1] * 2
    assert batch.columns.tolist() == [1, 2, 3, 4, 5, 7, 8, 2, 3]
    assert batch.kinds.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert (batch.tokens, batch.targets) == (13, 9)
    assert (batch.names, batch.new_names) == (4, 1)
