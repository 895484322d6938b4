from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from adprior_bench.search.peers.truth import find_truth
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.search.settings import SearchSettings
from integration.brute_force import name_log_probs
from support.small_models import VOCABULARY, Exported, export, small_gemma3  # noqa: F401  fixture

PROMPT = [5, 9, 4, 7]
END = 1
TOP_K = 7


@dataclass(frozen=True)
class Catalogue:
    """Advertisers with one to three names, and each name's advertiser."""

    paths: list[list[int]]
    owners: list[int]

    @classmethod
    def random(cls) -> Catalogue:
        random = np.random.default_rng(2)
        names = {
            tuple(random.integers(3, VOCABULARY, random.integers(1, 4)).tolist()) for _ in range(90)
        }
        paths = [[*name, END] for name in sorted(names)]
        return cls(paths, [row // 2 for row in range(len(paths))])

    def scores(self, model: Any) -> np.ndarray[Any, Any]:
        """Return each advertiser's log-probability, from every name's."""
        sums = np.full(max(self.owners) + 1, -np.inf)
        np.logaddexp.at(sums, self.owners, name_log_probs(model, PROMPT, self.paths))
        return sums


@pytest.mark.parametrize("margin_nats", [0.0, 0.02, 100.0])
def test_the_truth_is_what_scoring_every_name_finds(export: Any, margin_nats: float) -> None:  # noqa: F811
    exported: Exported = export(small_gemma3)
    catalogue = Catalogue.random()
    trie = Trie.build(catalogue.paths, catalogue.owners)
    settings = SearchSettings(width=4, token_budget=1, margin_nats=margin_nats)
    truth = find_truth(exported.engine, trie, PROMPT, settings, TOP_K)
    scores = catalogue.scores(exported.model)
    last = np.sort(scores)[-TOP_K]
    assert truth.rows == set(np.flatnonzero(scores >= last - margin_nats - 1e-5).tolist())
    assert truth.is_certified == (margin_nats < 100)
    assert len(truth.rows) >= TOP_K


def test_a_catalogue_may_have_fewer_advertisers_than_wanted(export: Any) -> None:  # noqa: F811
    trie = Trie.build([[4, END], [5, 6, END]], [0, 1])
    engine = export(small_gemma3).engine
    assert find_truth(engine, trie, PROMPT, SearchSettings(), 20).rows == {0, 1}
