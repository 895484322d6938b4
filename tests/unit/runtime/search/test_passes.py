from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_runtime.engines.base import PASS_TOKENS, ROOT, LogProbs
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.search.passes import LEAST_LOG_PROB, ForwardPasses
from support.table_engine import TableEngine, TableState

VOCABULARY = 7
PROMPT = (3, 1)


class ForgettingEngine(TableEngine):
    """Records which earlier results were still in memory when the next pass began."""

    def __init__(self) -> None:
        super().__init__(VOCABULARY)
        self.answers: list[weakref.ref[LogProbs]] = []
        self.held: list[int] = []

    def extend(
        self,
        state: TableState,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        self.held.append(sum(answer() is not None for answer in self.answers))
        answer = super().extend(state, token_ids, parents, rows, next_tokens, keep=keep)
        self.answers.append(weakref.ref(answer))
        return answer


class FaultyEngine(TableEngine):
    """Returns ``value`` for token 2 after one path."""

    def __init__(self, value: float, path: tuple[int, ...]) -> None:
        super().__init__(VOCABULARY)
        self._value, self._path = value, path

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        found = super().log_probs(path).copy()
        if path == self._path:
            found[2] = self._value
        return found


def _chain_and_fan(count: int) -> tuple[Any, Any, list[tuple[int, ...]]]:
    """Draw a tree whose nodes continue the prompt's end or any node before them."""
    random = np.random.default_rng(4)
    tokens = random.integers(0, VOCABULARY, count).astype(np.int64)
    parents = np.array([random.integers(ROOT, min(number, 40)) for number in range(count)])
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent != ROOT else ()), token))
    return tokens, parents, paths


@pytest.mark.parametrize("count", [1, PASS_TOKENS, PASS_TOKENS + 1, 2 * PASS_TOKENS + 5])
def test_a_long_pass_is_split_and_one_part_is_in_memory_at_a_time(count: int) -> None:
    engine, asked = ForgettingEngine(), []
    state, _ = engine.prefill(PROMPT, [])
    passes = ForwardPasses(engine, state, lambda: asked.append(len(engine.pass_sizes)))
    tokens, parents, paths = _chain_and_fan(count)
    rows = np.sort(np.random.default_rng(5).integers(0, count, 3 * count))
    wanted = np.random.default_rng(6).integers(0, VOCABULARY, len(rows)).astype(np.int64)
    found = passes.extend(tokens, parents, rows, wanted)
    expected = [
        engine.log_probs(paths[row])[token] for row, token in zip(rows, wanted, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)
    assert sum(engine.pass_sizes) == count
    assert max(engine.pass_sizes) <= PASS_TOKENS
    assert len(engine.pass_sizes) == -(-count // PASS_TOKENS)
    assert max(engine.pass_sizes) - min(engine.pass_sizes) <= 1
    assert engine.held == [0] * len(engine.pass_sizes)
    assert asked == [*range(len(engine.pass_sizes))]  # before each pass


class NarrowEngine(TableEngine):
    """Takes fewer tokens in a pass when its tree is larger."""

    def most_tokens(self, state: TableState) -> int:
        return max(6 - len(state.paths) // 4, 1)


def test_the_engine_limits_the_tokens_of_each_pass() -> None:
    engine = NarrowEngine(VOCABULARY)
    passes = ForwardPasses(engine, engine.prefill(PROMPT, [])[0], lambda: None)
    tokens, parents, paths = _chain_and_fan(20)
    rows = np.arange(20)
    found = passes.extend(tokens, parents, rows, tokens)
    np.testing.assert_array_equal(
        found, [engine.log_probs(path)[token] for path, token in zip(paths, tokens, strict=True)]
    )
    assert engine.pass_sizes == [5, 5, 4, 3, 2, 1]
    with pytest.raises(ValueError, match="2 tokens, a pass holds 1"):
        passes.try_out(tokens[:2], parents[:2], rows[:2], tokens[:2])


def test_try_out_keeps_no_nodes() -> None:
    engine = ForgettingEngine()
    passes = ForwardPasses(engine, engine.prefill(PROMPT, [])[0], lambda: None)
    one = np.array([4], dtype=np.int64), np.array([ROOT]), np.array([0]), np.array([5], np.int64)
    assert passes.try_out(*one).tolist() == [engine.log_probs((4,))[5]]
    assert passes.extend(*one).tolist() == [engine.log_probs((4,))[5]]
    below = np.array([2], dtype=np.int64), np.array([0]), np.array([0]), np.array([5], np.int64)
    assert passes.extend(*below).tolist() == [engine.log_probs((4, 2))[5]]


def test_try_out_refuses_more_tokens_than_a_pass_holds() -> None:
    passes = ForwardPasses(TableEngine(VOCABULARY), None, lambda: None)
    tokens, parents, _ = _chain_and_fan(PASS_TOKENS + 1)
    with pytest.raises(ValueError, match="513 tokens, a pass holds 512"):
        passes.try_out(tokens, parents, np.array([0]), np.array([1], dtype=np.int64))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    engine = FaultyEngine(value, (1,))
    passes = ForwardPasses(engine, engine.prefill(PROMPT, [])[0], lambda: None)
    wanted = np.array([1, 2, 3], dtype=np.int64)
    with pytest.raises(ModelOutputError, match="found NaN or \\+inf in 1 of 3") as caught:
        passes.try_out(wanted[:1], np.array([ROOT]), np.zeros(3, dtype=np.int64), wanted)
    assert caught.value.grpc_code == "INTERNAL"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-np.inf, -3e38, 2 * LEAST_LOG_PROB])
def test_log_probabilities_have_a_finite_floor(value: float) -> None:
    engine = FaultyEngine(value, (1,))
    passes = ForwardPasses(engine, engine.prefill(PROMPT, [])[0], lambda: None)
    wanted = np.array([2, 3], dtype=np.int64)
    first, *others = passes.try_out(
        np.array([1], np.int64), np.array([ROOT]), np.array([0, 0]), wanted
    )
    assert first == LEAST_LOG_PROB
    assert all(LEAST_LOG_PROB < other <= 0 for other in others)
    assert np.exp(first) == 0


class ShortEngine(TableEngine):
    """Leaves the last answer out, or adds one."""

    def __init__(self, change: int) -> None:
        super().__init__(VOCABULARY)
        self._change = change

    def extend(self, *given: Any, **options: Any) -> LogProbs:
        return np.resize(answer := super().extend(*given, **options), len(answer) + self._change)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_answers_is_refused_before_compiled_code_reads_them(change: int) -> None:
    engine = ShortEngine(change)
    state, _ = engine.prefill(PROMPT, [])
    passes = ForwardPasses(engine, state, lambda: None)
    one = np.zeros(1, dtype=np.int64)
    expected = rf"found an array of \({2 + change},\), expected \(2,\)"
    with pytest.raises(ModelOutputError, match=expected):
        passes.extend(one, one + ROOT, np.zeros(2, dtype=np.int64), np.arange(2))
