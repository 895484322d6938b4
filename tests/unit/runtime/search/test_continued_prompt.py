from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.small_models import Exported, small_gemma3, small_llama
from support.table_engine import END, TableEngine

pytest_plugins = ("support.small_models",)

PROMPT, TAIL = [5, 9, 2, 7], [11, 3]
SETTINGS = SearchSettings(width=4, token_budget=10_000)
PathLogProb = Callable[[list[int]], float]


def _names(seed: int, count: int) -> list[tuple[int, ...]]:
    random = np.random.default_rng(seed)
    names = {tuple(random.integers(1, 12, random.integers(1, 4)).tolist()) for _ in range(count)}
    return [(*name, END) for name in sorted(names)]


def _check(engine: Any, path_log_prob: PathLogProb) -> None:
    """Compare a second search, after two further tokens, with brute force."""
    advertisers, interests = _names(1, 40), _names(2, 30)
    tries = [Trie.build(names, range(len(names))) for names in (advertisers, interests)]
    first = TrieSearch(engine, tries[0], read_prompt(engine, tries[0], PROMPT), SETTINGS)
    found = first.run(5)
    assert found.exact
    assert found.extended_tokens > 0
    second = first.continue_prompt(TAIL, tries[1], SETTINGS)
    with pytest.raises(ValueError, match="this one cannot go on"):
        first.score([0])
    after_tail = np.array([path_log_prob([*TAIL, *name]) for name in interests])
    after_tail -= path_log_prob(TAIL)
    result = second.run(6)
    assert result.exact
    rows = tries[1].leaf_advertiser[result.leaves[:6]]
    assert sorted(rows) == sorted(np.argsort(-after_tail)[:6])
    np.testing.assert_allclose(result.log_probs[:6], after_tail[rows], atol=1e-3)
    scores = second.score(np.arange(len(interests)))
    np.testing.assert_allclose(scores.log_probs, after_tail, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_two_searches_after_one_prompt_equal_brute_force(seed: int) -> None:
    engine = TableEngine(50, seed=seed)
    _check(engine, engine.path_log_prob)


@pytest.mark.parametrize("make", [small_llama, small_gemma3])
def test_a_real_models_searches_equal_brute_force(
    export: Callable[[Callable[[], Any]], Exported], make: Callable[[], Any]
) -> None:
    exported = export(make)

    def path_log_prob(path: list[int]) -> float:
        return sum(
            float(exported.expected([*PROMPT, *path[:depth]])[token])
            for depth, token in enumerate(path)
        )

    _check(exported.engine, path_log_prob)
