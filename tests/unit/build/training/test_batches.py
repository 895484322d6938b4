from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.training.batches import RememberedEpochs, cut_into_batches
from adprior_build.training.examples import Example


def of_lengths(lengths: list[int]) -> list[Example]:
    return [Example([row] * length, [1]) for row, length in enumerate(lengths)]


def rows(batches: list[list[Example]]) -> list[list[int]]:
    return [[example.token_ids[0] for example in batch] for batch in batches]


@given(st.lists(st.integers(2, 9), max_size=50), st.integers(1, 7), st.integers(0, 3))
def test_every_example_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    batches = rows(cut_into_batches(of_lengths(lengths), size, (seed,)))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sum(len(batch) < size for batch in batches) <= 1


def test_examples_of_a_batch_are_alike_in_length() -> None:
    assert rows(cut_into_batches(of_lengths([9, 2, 8, 3, 9, 2]), 2)) == [[1, 5], [3, 2], [0, 4]]


def test_lengths_are_evened_out_within_windows_only() -> None:
    lengths = np.random.default_rng(1).integers(2, 300, size=200).tolist()
    batches = cut_into_batches(of_lengths(lengths), 1)
    assert rows(batches[:64]) == [[row] for row in np.argsort(lengths[:64], kind="stable")]
    assert {row for (row,) in rows(batches[64:128])} == set(range(64, 128))


def test_the_order_of_batches_is_drawn_from_the_seed() -> None:
    examples = of_lengths(list(range(2, 42)))
    first, same, other = (cut_into_batches(examples, 2, (7, epoch)) for epoch in (0, 0, 1))
    assert rows(first) == rows(same) != rows(other)
    assert sorted(rows(first)) == sorted(rows(other)) == sorted(rows(cut_into_batches(examples, 2)))


def test_the_last_epoch_is_drawn_once() -> None:
    class Counting:
        def __init__(self) -> None:
            self.drawn: list[int] = []

        def epoch(self, number: int) -> list[Example]:
            self.drawn.append(number)
            return of_lengths([number + 2])

    source = Counting()
    remembered = RememberedEpochs(source)
    lengths = [len(remembered.epoch(number)[0].token_ids) for number in (0, 0, 3, 3, 0)]
    assert lengths == [2, 2, 5, 5, 2]
    assert source.drawn == [0, 3, 0]


@pytest.mark.parametrize("size", [1, 16])
def test_nothing_gives_no_batch(size: int) -> None:
    assert cut_into_batches([], size, (0,)) == []
