from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.catalogue.trie import Trie

END = 0
NAMES = [(3, END), (5, 4, END), (5, 7, 2, END), (5, END), (9, 9, END)]


def test_they_are_the_first_two_levels() -> None:
    first = Trie.build(NAMES, range(5)).first_tokens
    assert first.token_ids.tolist() == [3, 5, 9]
    after = np.split(first.next_ids, first.offsets[1:-1])
    assert [tokens.tolist() for tokens in after] == [[END], [END, 4, 7], [9]]
    assert first.range == (0, 9)


def test_they_are_the_same_object_for_all_searches() -> None:
    trie = Trie.build(NAMES, range(5))
    assert trie.first_tokens is trie.first_tokens


@pytest.mark.parametrize(("count", "most"), [(0, 0), (1, 3), (2, 4), (3, 5), (99, 5)])
def test_a_bound_of_what_may_follow_some_of_them(count: int, most: int) -> None:
    assert Trie.build(NAMES, range(5)).first_tokens.most_next(count) == most


def test_names_of_one_token_have_nothing_below() -> None:
    first = Trie.build([(4,), (6,)], range(2)).first_tokens
    assert first.token_ids.tolist() == [4, 6]
    assert len(first.next_ids) == 0
    assert first.range == (4, 6)
    assert first.most_next(2) == 0


@given(st.sets(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), min_size=1))
def test_they_equal_the_tries_children(names: set[tuple[int, ...]]) -> None:
    trie = Trie.build([(*name, END) for name in sorted(names)], range(len(names)))
    first = trie.first_tokens
    assert first.token_ids.tolist() == trie.children(0)[0].tolist()
    for place, node in enumerate(trie.first_nodes):
        after = first.next_ids[first.offsets[place] : first.offsets[place + 1]]
        assert after.tolist() == trie.children(node)[0].tolist()
