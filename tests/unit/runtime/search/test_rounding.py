"""What rounding may have decided is never certified."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.bundle import Manifest
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.forecast.beams import Beams
from adprior_runtime.forecast.decode_step import DecodedForecast, DecodeStep
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.rounding import (
    DEFAULT_MARGIN_NATS,
    error_of_engine,
    margin_nats,
)
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.table_engine import TableEngine

END = 0
PROMPT = (3, 1)
MARGIN = 1e-4
EXACT = SearchSettings(mode=SearchMode.EXACT, width=3, token_budget=10_000, margin_nats=MARGIN)


class PairedEngine(TableEngine):
    """Tokens 2 k and 2 k - 1, and their continuations, differ by at most ``gap`` nats a token.

    It stands for a model whose true log-probabilities are those of `truth`, as an engine of finite
    precision computes them: each with an error of its own, of at most ``error``.
    """

    def __init__(self, vocabulary: int, *, seed: int, gap: float, error: float) -> None:
        super().__init__(vocabulary, seed=seed)
        self._gap, self._error = gap, error

    def truth(self, path: tuple[int, ...]) -> npt.NDArray[np.float64]:
        alike = np.random.default_rng([self._seed, *((token + 1) // 2 for token in path)])
        own = np.random.default_rng([self._seed, *path])
        logits = np.repeat(alike.normal(size=self._vocabulary // 2 + 1) * 2, 2)[1:]
        logits += own.uniform(0, self._gap, size=self._vocabulary)
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float64)

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        random = np.random.default_rng([self._seed, 7, *path])
        errors = random.uniform(-self._error, self._error, size=self._vocabulary)
        return np.asarray(self.truth(path) + errors, dtype=np.float32)

    def true_log_prob(self, path: tuple[int, ...]) -> float:
        return float(sum(self.truth(path[:at])[path[at]] for at in range(len(path))))


def _searched(
    engine: TableEngine, names: Sequence[tuple[int, ...]], top_k: int, how: SearchSettings
) -> tuple[SearchResult, DecodedForecast]:
    """Search for advertisers with one name each, and decode; the ids equal the rows."""
    trie = Trie.build(names, range(len(names)))
    count = len(names)
    shown = [str(row) for row in range(count)]
    advertisers = Advertisers.build(range(count), shown, [1] * count, [0] * count)
    result = TrieSearch(engine, trie, read_prompt(engine, trie, PROMPT), how).run(top_k)
    tokens, lengths = trie.paths(result.leaves)
    beams = Beams(
        output_ids=tokens,
        lengths=lengths,
        log_probs=result.log_probs.astype(np.float32),
        proved_top_k=top_k if result.exact else 0,
        frontier_log_mass=result.frontier_log_mass,
    )
    forecast = DecodeStep(trie, advertisers, output_length=trie.depth).run(beams, top_k=top_k)
    assert forecast.exact == result.exact
    return result, forecast


@settings(max_examples=60)
@given(
    seed=st.integers(0, 9999),
    gap=st.sampled_from([0.0, 1e-7, 5e-6, 1e-4, 1.0]),
    top_k=st.integers(1, 12),
    mode=st.sampled_from(SearchMode),
)
def test_a_certified_set_is_the_true_one(
    seed: int, gap: float, top_k: int, mode: SearchMode
) -> None:
    """The engine's error may swap paired names; the true probabilities tell which came first."""
    error = 2e-6
    engine = PairedEngine(7, seed=seed, gap=gap, error=error)
    names = [(*pair, END) for pair in itertools.product(range(1, 7), repeat=2)]
    how = replace(EXACT, mode=mode, width=8, margin_nats=2 * 3 * 2 * error)
    _, forecast = _searched(engine, names, top_k, how)
    truth = [engine.true_log_prob(name) for name in names]
    best = set(np.argsort(truth)[::-1][:top_k].tolist())
    if forecast.exact:
        assert set(forecast.advertiser_ids.tolist()) == best


@pytest.mark.parametrize("gap", [0.0, 1e-7, 5e-6])
def test_a_gap_below_the_margin_is_not_certified_and_costs_no_budget(gap: float) -> None:
    """Two leaders this close are a tie, whatever their order; no expansion breaks the tie."""
    engine = PairedEngine(7, seed=3, gap=gap, error=1e-6)
    names = [(first, 3, END) for first in range(1, 7)]
    truth = sorted((engine.true_log_prob(name) for name in names), reverse=True)
    assert truth[0] - truth[1] < MARGIN / 2
    result, forecast = _searched(engine, names, 1, EXACT)
    assert not result.exact
    assert len(forecast.advertiser_ids) == 1
    both, _ = _searched(engine, names, 2, EXACT)
    assert both.exact
    assert result.extended_tokens <= both.extended_tokens + EXACT.width


def test_a_tie_ends_the_search_of_a_large_catalogue() -> None:
    """The two most probable of 1,296 names are equal; without a stop, all would be expanded."""
    names = [(*four, END) for four in itertools.product(range(1, 7), repeat=4)]

    class TiedEngine(TableEngine):
        def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
            logits = np.zeros(7)
            logits[[1, 2] if not path else [path[-1] if len(path) < 4 else END]] = 4.0
            return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)

    result, _ = _searched(TiedEngine(7), names, 1, replace(EXACT, token_budget=1500))
    assert not result.exact
    assert result.extended_tokens < 40


@pytest.mark.parametrize("level", [-3.0, -918.0, -5000.0])
def test_tiny_probabilities_are_still_ordered(level: float) -> None:
    """In double precision, a probability below -745 nats is 0."""
    engine = TableEngine(7)
    log_probs = np.full(7, level, dtype=np.float32) - np.arange(7, dtype=np.float32)
    engine.log_probs = lambda path: log_probs if not path else np.zeros(7, np.float32)  # type: ignore[method-assign]
    result, forecast = _searched(engine, [(first, END) for first in range(1, 7)], 3, EXACT)
    assert result.exact
    np.testing.assert_allclose(forecast.log_probs, level - np.arange(1, 4), rtol=1e-6)


def test_the_margin_follows_from_the_measured_error() -> None:
    manifest = Manifest(bundle_id="", log_prob_error=3e-5, longest_name_tokens=8)
    assert math.isclose(margin_nats(manifest), 2 * 3e-5 * 4)
    longer = replace(manifest, longest_name_tokens=32)
    assert math.isclose(margin_nats(longer), 2 * margin_nats(manifest))
    assert margin_nats(replace(manifest, log_prob_error=0.0)) > DEFAULT_MARGIN_NATS
    assert 0 < DEFAULT_MARGIN_NATS < margin_nats(manifest)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(0.0, 1e-5), (2e-6, 1e-5), (3.1e-5, 4e-5), (4e-5, 4e-5), (9.7e-5, 1e-4), (1.1e-3, 2e-3)],
)
def test_an_error_has_a_least_value_and_one_digit(measured: float, expected: float) -> None:
    assert math.isclose(error_of_engine(measured), expected, rel_tol=1e-9)
