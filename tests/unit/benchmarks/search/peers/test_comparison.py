from __future__ import annotations

from collections.abc import Sequence

import pytest

from adprior_bench.search.peers.comparison import advertisers_of
from adprior_bench.search.peers.system import Answer
from adprior_runtime.catalogue.trie import Trie

END = 1
TRIE = Trie.build([[4, END], [5, END], [6, 7, END], [8, END]], [0, 1, 1, 2])


def answer(beams: Sequence[Sequence[int]], log_probs: Sequence[float | None]) -> Answer:
    return Answer(beams=beams, log_probs=log_probs, ms=1.0, processor_ms=1.0)


@pytest.mark.parametrize(("top_k", "expected"), [(1, {1}), (2, {0, 1}), (9, {0, 1, 2})])
def test_names_of_one_advertiser_add_up(top_k: int, expected: set[int]) -> None:
    beams = [[4, END], [5, END], [6, 7, END], [8, END]]
    assert advertisers_of(answer(beams, [-1.0, -1.2, -1.3, -9.0]), TRIE, top_k) == expected


def test_beams_off_the_catalogue_are_skipped() -> None:
    beams = [[9, END], [6, 7], [8, END], [4, END], [5, END]]
    assert advertisers_of(answer(beams, [None] * 5), TRIE, 2) == {0, 2}
