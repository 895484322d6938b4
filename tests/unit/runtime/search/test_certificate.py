"""The certificate, for trees written down by hand and trees grown in any order."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.search.certificate import Standing
from adprior_runtime.search.expansion import FOUND, OPEN
from adprior_runtime.search.rounding import DEFAULT_MARGIN_NATS
from support.table_engine import END, TableEngine, aliased_catalogues

Tokens = tuple[int, ...]


class WrittenTable:
    """The part of `Prefixes` that the proof uses; it has all prefixes from the start."""

    def __init__(
        self, nodes: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], names: int
    ) -> None:
        kinds = np.full(len(nodes), OPEN, dtype=np.int8)
        kinds[:names] = FOUND
        self.names, self.columns = names, (nodes, scores, kinds)

    def reach(self, count: int) -> None:
        """Nothing is left out."""


class GrownTree:
    """The part of a `SearchTree` that the proof uses."""

    def __init__(
        self, trie: Trie, found: Mapping[Tokens, float], frontier: Sequence[float]
    ) -> None:
        lengths = np.array([len(path) for path in found], dtype=np.int64)
        tokens = np.zeros((len(lengths), max(map(len, found), default=0)), dtype=np.int32)
        for row, path in enumerate(found):
            tokens[row, : len(path)] = path
        nodes = np.concatenate([trie.find(tokens, lengths), np.arange(len(frontier))])
        scores = np.array([*found.values(), *frontier], dtype=np.float64)
        self.prefixes = WrittenTable(nodes, scores, len(found))
        self.extended_tokens = 0


def is_exact(
    names: Mapping[Tokens, int],
    found: Mapping[Tokens, float],
    frontier: Sequence[float],
    top_k: int,
    excluded: Sequence[int] = (),
    margin: float = DEFAULT_MARGIN_NATS,
) -> bool:
    """Judge log-probabilities of names and of open prefixes."""
    trie = Trie.build([*names], [*names.values()])
    rows = np.unique(np.array(excluded, dtype=np.int64))
    tree: Any = GrownTree(trie, found, frontier)
    return Standing(trie, rows, top_k, margin).is_exact(tree)


def _logs(probabilities: Mapping[Tokens, float]) -> dict[Tokens, float]:
    return {path: math.log(p) for path, p in probabilities.items()}


# Advertiser 0 has two names, of which one lies below the prefix (2,).
SMALL = {(1, END): 0, (2, 3, END): 0, (3, END): 1, (4, END): 2}


@pytest.mark.parametrize(
    ("found", "frontier", "top_k", "exact"),
    [
        ({(1, END): 0.4, (3, END): 0.3, (4, END): 0.1}, [0.05], 1, False),
        ({(1, END): 0.4, (3, END): 0.3, (4, END): 0.1}, [0.05], 3, False),
        ({(1, END): 0.4, (2, 3, END): 0.05, (3, END): 0.3}, [0.2], 1, True),
        ({(1, END): 0.4, (2, 3, END): 0.05, (3, END): 0.3}, [0.2], 2, True),
        ({(1, END): 0.4, (2, 3, END): 0.05, (3, END): 0.3}, [0.2, 0.15], 1, True),
        ({(1, END): 0.4, (2, 3, END): 0.05, (3, END): 0.3}, [0.2, 0.15], 2, False),
        ({(1, END): 0.4, (2, 3, END): 0.05, (3, END): 0.3}, [0.2], 3, False),
        ({(1, END): 0.2, (3, END): 0.3, (4, END): 0.1}, [0.05], 1, True),
        ({(1, END): 0.2, (3, END): 0.3, (4, END): 0.1}, [0.15], 1, False),
        ({(1, END): 0.2, (3, END): 0.3, (4, END): 0.1}, [0.01], 2, False),
        ({(1, END): 0.4, (2, 3, END): 0.1, (3, END): 0.3, (4, END): 0.2}, [], 3, True),
        ({(1, END): 0.4, (2, 3, END): 0.1, (3, END): 0.3, (4, END): 0.2}, [], 2, True),
        ({(3, END): 0.25, (4, END): 0.25, (1, END): 0.1, (2, 3, END): 0.1}, [], 1, False),
        ({}, [0.9], 1, False),
    ],
)
def test_the_certificate_by_hand(
    found: dict[Tokens, float], frontier: list[float], top_k: int, exact: bool
) -> None:
    assert is_exact(SMALL, _logs(found), np.log(frontier).tolist(), top_k) is exact


@pytest.mark.parametrize(
    ("frontier", "exact"),
    [([0.15, 0.15], False), ([0.15, 0.06], False), ([0.15, 0.04], True), ([0.19], True)],
)
def test_each_missing_name_may_have_an_open_prefix_of_its_own(
    frontier: list[float], exact: bool
) -> None:
    """One name of 0.3 leads. Another advertiser has 0.1 and two names that were not found."""
    names = {(1, END): 0, (2, END): 1, (3, 1, END): 1, (4, 1, END): 1}
    found = _logs({(1, END): 0.3, (2, END): 0.1})
    assert is_exact(names, found, np.log(frontier).tolist(), 1) is exact


def test_excluding_everyone_leaves_an_empty_forecast_that_is_exact() -> None:
    assert is_exact(SMALL, {}, [math.log(0.2)], 5, excluded=[0, 1, 2])


@pytest.mark.parametrize("difference", [0.5, 2.0])
@pytest.mark.parametrize("hides", ["another name", "a prefix"])
def test_the_smallest_difference_that_proves_an_order_is_the_margin(
    difference: float, hides: str
) -> None:
    leader, other = -3.0, -3.0 - 0.01 * difference
    found: dict[Tokens, float] = {(1, END): leader}
    found |= {} if hides == "a prefix" else {(2, END): other}
    frontier = [other] if hides == "a prefix" else []
    exact = is_exact({(1, END): 0, (2, END): 1}, found, frontier, 1, margin=0.01)
    assert exact is (difference > 1)


@pytest.mark.parametrize(("gap", "exact"), [(2.0, True), (3e-4, False)])
def test_a_difference_lost_in_single_precision_is_not_proved(gap: float, exact: bool) -> None:
    """The answer travels in FP32, whose numbers are 5e-4 apart at -5,000 nats."""
    found: dict[Tokens, float] = {(1, END): -5000.0, (2, END): -5000.0 - gap}
    assert is_exact({(1, END): 0, (2, END): 1}, found, [], 1, margin=1e-5) is exact


def _grow(
    names: Mapping[Tokens, int], engine: TableEngine, passes: int, order: Sequence[float]
) -> tuple[dict[Tokens, float], list[float]]:
    """Expand one prefix at a time; return the names found and the open prefixes' scores."""
    opened: list[tuple[float, Tokens, float]] = [(0.0, (), 0.0)]
    found: dict[Tokens, float] = {}
    for number in range(passes + 1):
        if not opened:
            break
        _, prefix, score = heapq.heappop(opened)
        log_probs = engine.log_probs(prefix)
        length = len(prefix) + 1
        for child in sorted({n[:length] for n in names if n[: length - 1] == prefix}):
            child_score = score + float(log_probs[child[-1]])
            if child in names:
                found[child] = child_score
            else:
                priority = order[number % len(order)] if order else -child_score
                heapq.heappush(opened, (priority, child, child_score))
    return found, [score for _, _, score in opened]


@settings(max_examples=200)
@given(
    aliased_catalogues(vocabulary=7),
    st.integers(0, 40),
    st.lists(st.floats(0, 1), max_size=9),
    st.integers(1, 12),
    st.sets(st.integers(0, 8), max_size=4),
    st.booleans(),
)
def test_a_certificate_holds_whatever_was_expanded(
    drawn: tuple[dict[Tokens, int], TableEngine],
    passes: int,
    order: list[float],
    top_k: int,
    excluded: set[int],
    has_aliases: bool,
) -> None:
    names, engine = drawn
    if not has_aliases:
        names = {path: row for row, path in enumerate(names)}
    excluded &= set(names.values())
    found, frontier = _grow(names, engine, passes, order)
    kept = {path: score for path, score in found.items() if names[path] not in excluded}
    if not is_exact(names, kept, frontier, top_k, sorted(excluded)):
        return
    truth: dict[int, float] = {}
    sums: dict[int, float] = {}
    for path, row in names.items():
        if row not in excluded:
            truth[row] = truth.get(row, 0.0) + math.exp(engine.path_log_prob(path))
    for path, score in kept.items():
        sums[names[path]] = sums.get(names[path], 0.0) + math.exp(score)
    best = sorted(truth.values(), reverse=True)[:top_k]
    shown = sorted(sums, key=lambda row: -sums[row])[:top_k]
    np.testing.assert_allclose([sums[row] for row in shown], best, atol=1e-6)
    np.testing.assert_allclose([truth[row] for row in shown], best, atol=1e-6)
