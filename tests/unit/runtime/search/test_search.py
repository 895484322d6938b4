from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import PASS_TOKENS, FirstStep
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.rounding import DEFAULT_MARGIN_NATS
from adprior_runtime.search.search import SearchCancelledError, TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.table_engine import TableEngine, TableState

VOCABULARY = 7
END = 0
PROMPT = (3, 1)
BEAM = SearchSettings(mode=SearchMode.BEAM, width=2)
EXACT = SearchSettings(mode=SearchMode.EXACT, width=3, token_budget=10_000)


@dataclass(frozen=True, kw_only=True)
class World:
    """A small catalogue, and every name's probability by brute force."""

    engine: TableEngine
    paths: list[tuple[int, ...]]
    rows: list[int]
    trie: Trie
    excluded: frozenset[int]

    def probabilities(self) -> dict[int, float]:
        total: dict[int, float] = {}
        for path, row in zip(self.paths, self.rows, strict=True):
            total[row] = total.get(row, 0.0) + math.exp(self.engine.path_log_prob(path))
        return total

    def search(
        self, search_settings: SearchSettings, is_cancelled: Callable[[], bool] = lambda: False
    ) -> TrieSearch:
        return TrieSearch(
            self.engine,
            self.trie,
            read_prompt(self.engine, self.trie, PROMPT),
            search_settings,
            excluded_rows=sorted(self.excluded),
            is_cancelled=is_cancelled,
        )

    def sums(self, result: SearchResult) -> dict[int, float]:
        """Return the probability found of each advertiser."""
        sums: dict[int, float] = {}
        for leaf, score in zip(result.leaves, result.log_probs, strict=True):
            row = int(self.trie.leaf_advertiser[leaf])
            sums[row] = sums.get(row, 0.0) + math.exp(score)
        return sums

    def rows_found(self, result: SearchResult) -> list[int]:
        """Return advertisers, the most probable first."""
        sums = self.sums(result)
        return sorted(sums, key=lambda row: -sums[row])


def make_world(
    names: Sequence[Sequence[int]],
    rows: Sequence[int] | None = None,
    excluded: Sequence[int] = (),
    seed: int = 0,
    scale: float = 2.0,
    engine: TableEngine | None = None,
) -> World:
    paths = [(*name, END) for name in names]
    owners = list(range(len(paths))) if rows is None else list(rows)
    engine = engine or TableEngine(VOCABULARY, seed=seed, scale=scale)
    engine.prefill(PROMPT, [])
    return World(
        engine=engine,
        paths=paths,
        rows=owners,
        trie=Trie.build(paths, owners),
        excluded=frozenset(excluded),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    name = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(tuple)
    names = sorted(draw(st.sets(name, min_size=1, max_size=30)))
    advertisers = draw(st.integers(1, len(names)))
    rows = [*range(advertisers), *draw(_rows(advertisers, len(names) - advertisers))]
    excluded = draw(st.sets(st.integers(0, advertisers - 1), max_size=advertisers - 1))
    order = draw(st.permutations(rows))
    seed, scale = draw(st.integers(0, 99)), draw(st.sampled_from([0.1, 2.0, 6.0]))
    return make_world(names, order, sorted(excluded), seed, scale)


def _rows(advertisers: int, count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, advertisers - 1), min_size=count, max_size=count)


MODES = [BEAM, replace(BEAM, width=4), EXACT, replace(EXACT, token_budget=12)]


@settings(max_examples=150)
@given(worlds(), st.sampled_from(MODES), st.integers(1, 8))
def test_found_names_have_the_models_own_probability(
    world: World, search_settings: SearchSettings, top_k: int
) -> None:
    result = world.search(search_settings).run(top_k)
    tokens, lengths = world.trie.paths(result.leaves)
    for row, length, log_prob in zip(tokens, lengths, result.log_probs, strict=True):
        path = tuple(row[:length].tolist())
        assert path in world.paths
        assert math.isclose(world.engine.path_log_prob(path), log_prob, abs_tol=1e-5)
    assert len(set(result.leaves.tolist())) == len(result.leaves)
    assert (np.diff(result.log_probs) <= 0).all()


@settings(max_examples=150)
@given(worlds(), st.sampled_from(MODES), st.integers(1, 8))
def test_found_names_and_frontier_cover_the_catalogue(
    world: World, search_settings: SearchSettings, top_k: int
) -> None:
    result = world.search(search_settings).run(top_k)
    truth = world.probabilities()
    outside = math.exp(result.frontier_log_mass)
    assert np.exp(result.log_probs).sum() + outside >= sum(truth.values()) - 1e-6


@settings(max_examples=300)
@given(worlds(), st.sampled_from(MODES), st.integers(1, 8))
def test_exact_means_exact(world: World, search_settings: SearchSettings, top_k: int) -> None:
    result = world.search(search_settings).run(top_k)
    truth = {r: p for r, p in world.probabilities().items() if r not in world.excluded}
    wanted = min(top_k, len(truth))
    if search_settings is EXACT:
        ranked = sorted(truth.values(), reverse=True)
        tie = wanted < len(ranked) and math.isclose(
            ranked[wanted - 1], ranked[wanted], rel_tol=1.1 * DEFAULT_MARGIN_NATS
        )
        assert result.exact or tie
    if result.exact:
        best = sorted(truth, key=lambda row: -truth[row])[:wanted]
        found = world.rows_found(result)[:wanted]
        for expected, row in zip(best, found, strict=True):
            assert math.isclose(truth[expected], truth[row], rel_tol=1e-4)
        sums = world.sums(result)
        for row in found:
            assert math.isclose(sums[row], truth[row], rel_tol=1e-4)


@settings(max_examples=100)
@given(worlds(), st.sampled_from(MODES), st.integers(1, 8))
def test_excluded_advertisers_are_never_found(
    world: World, search_settings: SearchSettings, top_k: int
) -> None:
    result = world.search(search_settings).run(top_k)
    assert not world.excluded.intersection(world.rows_found(result))


@settings(max_examples=150)
@given(worlds(), st.integers(1, 4), st.integers(1, 8), st.data())
def test_a_search_goes_on_beyond_known_advertisers(
    world: World, top_k: int, new_k: int, data: st.DataObject
) -> None:
    """Known ones are found like all others, but do not count."""
    known = data.draw(st.sets(st.integers(0, max(world.rows)), max_size=8))
    search = world.search(EXACT)
    first = search.run(top_k)
    result = search.run(new_k, ignored_rows=sorted(known))
    assert set(first.leaves.tolist()) <= set(result.leaves.tolist())
    truth = {r: p for r, p in world.probabilities().items() if r not in world.excluded | known}
    found = [row for row in world.rows_found(result) if row not in known][:new_k]
    if result.exact:
        best = sorted(truth.values(), reverse=True)[:new_k]
        assert [truth[row] for row in found] == pytest.approx(best, rel=1e-4)
    else:  # only a tie prevents the proof
        ranked = sorted(truth.values(), reverse=True)
        assert ranked[new_k - 1] == pytest.approx(ranked[new_k], rel=1.1 * DEFAULT_MARGIN_NATS)


@settings(max_examples=200)
@given(worlds(), st.sampled_from(MODES), st.integers(0, 60), st.data())
def test_candidates_are_scored_exactly_or_bounded(
    world: World, search_settings: SearchSettings, budget: int, data: st.DataObject
) -> None:
    search = world.search(replace(search_settings, candidate_token_budget=budget))
    search.run(3)
    advertisers = sorted(set(world.rows))
    rows = data.draw(st.permutations(advertisers).map(lambda p: p[: 1 + len(p) // 2]))
    scores = search.score(rows)
    truth = world.probabilities()
    assert scores.extended_tokens <= budget
    for row, log_prob, exact in zip(rows, scores.log_probs, scores.exact, strict=True):
        if exact:
            assert math.isclose(math.exp(log_prob), truth[row], rel_tol=1e-4)
        else:
            assert math.exp(log_prob) >= truth[row] - 1e-6
    if budget >= sum(map(len, world.paths)):
        assert scores.exact.all()
        again = search.score(rows[::-1])
        np.testing.assert_allclose(again.log_probs[::-1], scores.log_probs, rtol=1e-5)


@settings(max_examples=150)
@given(
    st.sets(
        st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(tuple), min_size=1
    ),
    st.sampled_from([0.01, 0.5, 2.0]),
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_an_exact_search_finds_as_many_as_wanted_whatever_its_budget(
    names: set[tuple[int, ...]], scale: float, top_k: int, budget: int, seed: int
) -> None:
    """A beam as wide as K finds K names. So does an exact search that runs out of tokens."""
    world = make_world(sorted(names), scale=scale, seed=seed)
    result = world.search(replace(EXACT, width=top_k, token_budget=budget)).run(top_k)
    assert len(result.leaves) >= min(top_k, len(names))


def test_an_exact_search_leaves_out_what_the_proof_does_not_need() -> None:
    """Two first tokens hold the two leaders. A beam of four takes two more."""
    engine = ChosenEngine({1: 0.5, 2: 0.3, 3: 0.05, 4: 0.04})
    world = make_world([(token,) for token in range(1, 7)], engine=engine)
    sizes = {}
    for mode in SearchMode:
        world.engine.pass_sizes.clear()
        result = world.search(SearchSettings(mode=mode, width=4, token_budget=99)).run(2)
        assert result.exact
        sizes[mode] = world.engine.pass_sizes.copy()
    assert sizes == {SearchMode.BEAM: [4], SearchMode.EXACT: [2]}


def test_a_name_that_is_the_beginning_of_another_is_found() -> None:
    world = make_world([(1,), (1, 2), (1, 2, 3), (4,)])
    result = world.search(BEAM).run(4)
    assert len(result.leaves) == 4
    assert result.exact
    assert result.frontier_log_mass == -math.inf


@pytest.mark.parametrize("excluded", [[], [0], [1]])
def test_a_name_of_the_terminator_alone_is_found_or_excluded(excluded: list[int]) -> None:
    world = make_world([(), (1,), (2, 3)], excluded=excluded)
    result = world.search(BEAM).run(3)
    assert result.exact
    assert sorted(world.rows_found(result)) == [row for row in range(3) if row not in excluded]
    truth, found = world.probabilities(), world.sums(result)
    assert [found[row] for row in found] == pytest.approx([truth[row] for row in found], rel=1e-4)
    assert math.exp(result.frontier_log_mass) >= sum(truth[row] for row in excluded) - 1e-6


def test_aliases_split_across_pruned_branches_add_up() -> None:
    names = [(first, second) for first in range(1, 7) for second in range(1, 7)]
    rows = [index % 6 for index in range(len(names))]  # six names each, in every branch
    world = make_world(names, rows, seed=4)
    truth = world.probabilities()
    result = world.search(replace(EXACT, width=2)).run(2)
    assert result.exact
    best = sorted(truth, key=lambda row: -truth[row])[:2]
    assert world.rows_found(result)[:2] == best


def test_a_beam_of_fixed_width_does_fixed_work() -> None:
    names = [(a, b, c) for a in range(1, 7) for b in range(1, 7) for c in range(1, 7)]
    world = make_world(names, scale=0.5)
    result = world.search(replace(BEAM, width=5)).run(3)
    assert world.engine.pass_sizes[-3:] == [5, 5, 5]
    assert result.extended_tokens == 15
    assert not result.exact


def test_a_name_of_its_own_branch_takes_one_pass() -> None:
    world = make_world([(1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6)])
    result = world.search(replace(BEAM, width=3)).run(3)
    assert world.engine.pass_sizes == [12]
    assert result.exact


def test_a_round_expands_a_branch_in_one_pass() -> None:
    engine = ChosenEngine({1: 0.6, 2: 0.3})
    world = make_world([(1,), (2, 5, 5, 5)], engine=engine)
    result = world.search(replace(EXACT, width=1)).run(2)
    assert world.engine.pass_sizes == [1, 4]
    assert result.exact


def test_a_budget_ends_an_exact_search() -> None:
    names = [(a, b, c) for a in range(1, 7) for b in range(1, 7) for c in range(1, 7)]
    world = make_world(names, scale=0.01)
    result = world.search(replace(EXACT, token_budget=40)).run(3)
    assert not result.exact
    assert 40 <= result.extended_tokens <= 40 + EXACT.width
    assert len(result.leaves) >= 3


@pytest.mark.parametrize(
    ("top_k", "width", "expected"),
    [
        (5, None, (32, 500)),
        (32, None, (32, 500)),
        (64, None, (64, 1000)),
        (1000, None, (1000, 15_625)),
        (5, 8, (8, 500)),
        (20, 8, (20, 500)),
        (5, 48, (48, 750)),
        (64, 48, (64, 1000)),
    ],
)
def test_a_wider_beam_has_a_larger_budget(
    top_k: int, width: int | None, expected: tuple[int, int]
) -> None:
    own = SearchSettings(width=32, token_budget=500, candidate_token_budget=7)
    found = own.for_top_k(top_k, width)
    assert (found.width, found.token_budget) == expected
    assert (found.mode, found.candidate_token_budget) == (own.mode, own.candidate_token_budget)


NAMES_OF_FOUR = list(itertools.product(range(1, 7), repeat=4))


@pytest.mark.parametrize("search_settings", [replace(BEAM, width=1000), replace(EXACT, width=900)])
def test_a_wide_search_has_passes_of_bounded_size(search_settings: SearchSettings) -> None:
    world = make_world(NAMES_OF_FOUR, scale=0.1)
    result = world.search(search_settings).run(800)
    assert PASS_TOKENS == 512 >= max(world.engine.pass_sizes) > 256
    assert sum(world.engine.pass_sizes) == result.extended_tokens
    truth = sorted(world.probabilities().values(), reverse=True)[:800]
    if search_settings.mode is SearchMode.EXACT:
        assert result.exact
        np.testing.assert_allclose(np.exp(result.log_probs[:800]), truth, rtol=1e-4)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_wide_search_stops_before_its_next_pass(missing: int) -> None:
    world = make_world(NAMES_OF_FOUR, scale=0.1)
    search_settings = replace(BEAM, width=1000)
    world.search(search_settings).run(800)
    whole = world.engine.pass_sizes.copy()
    assert len(whole) == 3
    world.engine.pass_sizes.clear()
    answers = iter([False] * (len(whole) - missing) + [True])
    search = world.search(search_settings, lambda: next(answers))
    with pytest.raises(SearchCancelledError):
        search.run(800)
    assert world.engine.pass_sizes == whole[:-missing]


def test_candidates_are_scored_in_passes_of_bounded_size() -> None:
    lengths = [85, 85, 86, 86, 86, 86]  # two tokens more than a pass holds
    world = make_world([(first,) * length for first, length in enumerate(lengths, start=1)])
    search = world.search(BEAM)
    scores = search.score(np.arange(len(lengths)))
    assert world.engine.pass_sizes == [342, 172]
    truth = [world.engine.path_log_prob(path) for path in world.paths]
    np.testing.assert_allclose(scores.log_probs, truth, rtol=1e-5)


def test_a_name_that_no_pass_can_hold_keeps_its_bound() -> None:
    long = (1, *[2] * PASS_TOKENS, 3)
    world = make_world([long, (4, 5, 6), (3, 5, 6), (2, 6)])
    search = world.search(replace(BEAM, width=1, candidate_token_budget=5000))
    search.run(1)
    world.engine.pass_sizes.clear()
    scores = search.score([0, 1, 2, 3])
    assert scores.exact.tolist() == [False, True, True, True]
    assert scores.log_probs[0] >= math.log(max(world.probabilities()[0], 1e-300))


@pytest.mark.parametrize("search_settings", [BEAM, EXACT])
def test_no_candidates_have_no_scores(search_settings: SearchSettings) -> None:
    search = make_world([(1, 2), (3,)]).search(search_settings)
    search.run(1)
    scores = search.score([])
    assert (len(scores.log_probs), len(scores.exact), scores.extended_tokens) == (0, 0, 0)


def test_a_candidate_over_the_budget_leaves_it_to_cheaper_ones() -> None:
    """The candidate with the highest bound needs five tokens, the others need one each."""
    engine = ChosenEngine({1: 0.1, 2: 0.4, 3: 0.2, 4: 0.15})
    world = make_world([(1,), (2, 2, 2, 2, 2), (3,), (4,)], engine=engine)
    search = world.search(replace(BEAM, width=1, candidate_token_budget=3))
    scores = search.score([1, 0, 2, 3])
    assert scores.exact.tolist() == [False, True, True, True]
    assert scores.extended_tokens == 3
    np.testing.assert_allclose(np.exp(scores.log_probs), [0.4, 0.1, 0.2, 0.15], rtol=1e-5)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_cancelled_search_stops_at_the_next_pass(passes: int) -> None:
    world = make_world([(a, b) for a in range(1, 7) for b in range(1, 7)])
    answers = iter([False] * passes + [True] * 9)
    search = world.search(EXACT, lambda: next(answers))
    with pytest.raises(SearchCancelledError):
        search.run(3)
    assert len(world.engine.pass_sizes) == passes


class ChosenEngine(TableEngine):
    """First tokens have given probabilities; each has one certain continuation."""

    def __init__(self, first: dict[int, float]) -> None:
        super().__init__(VOCABULARY)
        self._first = first

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        probabilities = np.full(VOCABULARY, 1e-9)
        if path:
            probabilities[END] = 1.0
        for token, probability in self._first.items() if not path else ():
            probabilities[token] = probability
        return np.asarray(np.log(probabilities), dtype=np.float32)


@pytest.mark.parametrize("mode", SearchMode)
def test_many_small_names_of_one_advertiser_may_hide_behind_a_beam(mode: SearchMode) -> None:
    """One name of 0.3 leads. Five names of 0.13 belong to one advertiser, which has 0.65."""
    engine = ChosenEngine({1: 0.3} | dict.fromkeys(range(2, 7), 0.13))
    world = make_world([(token,) for token in range(1, 7)], [0, 1, 1, 1, 1, 1], engine=engine)
    result = world.search(SearchSettings(mode=mode, width=1, token_budget=99)).run(1)
    sums = world.sums(result)
    if mode is SearchMode.BEAM:
        assert 1 not in sums
        assert not result.exact
    else:
        assert math.isclose(sums[1], 0.65, rel_tol=1e-5)
        assert result.exact


def test_a_contenders_missing_names_are_expanded() -> None:
    """One name of 0.3 leads. Another advertiser has 0.1 found, and two names of 0.12 not found."""
    engine = ChosenEngine({1: 0.3, END: 0.1, 2: 0.12, 3: 0.12})
    world = make_world([(1,), (), (2,), (3,)], [0, 1, 1, 1], engine=engine)
    result = world.search(replace(EXACT, width=1, token_budget=99)).run(1)
    assert result.exact
    assert len(result.leaves) == 4


class ImpossibleEngine(TableEngine):
    """Returns ``value`` for three tokens in ten, at one depth or at every depth."""

    def __init__(self, value: float, depth: int | None = None) -> None:
        super().__init__(VOCABULARY)
        self._value, self._depth = np.float32(value), depth

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        found = super().log_probs(path)
        if self._depth not in {None, len(path)}:
            return found
        chances = np.random.default_rng([len(path), *path]).random(VOCABULARY)
        return np.where(chances < 0.3, self._value, found)


class FewRankedEngine(TableEngine):
    """Tells at first only ``held`` of the tokens after the prompt, as an engine on a GPU does.

    Attributes:
        reads: How often all were asked for.
    """

    def __init__(self, model: TableEngine, held: int) -> None:
        super().__init__(VOCABULARY)
        self._model, self._held, self.reads = model, held, 0

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return self._model.log_probs(path)

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,
    ) -> tuple[TableState, RankedTokens]:
        state, ranked = super().prefill(prompt_ids, next_tokens)
        everything = ranked.read_all()
        order = np.argsort(everything)  # of equal ones, any may be held
        others = everything[order[: -self._held]].astype(np.float64)
        places = np.sort(order[-self._held :])

        def read_all() -> npt.NDArray[np.float32]:
            self.reads += 1
            return everything

        return state, RankedTokens(
            asked=ranked.asked,
            places=places,
            log_probs=everything[places],
            others_log_mass=float(np.logaddexp.reduce(others, initial=-np.inf)),
            read_all=read_all,
        )


@settings(max_examples=300)
@given(
    worlds(), st.sampled_from(MODES), st.integers(1, 8), st.integers(1, 4), st.booleans(), st.data()
)
def test_a_search_that_begins_with_few_tokens_asks_and_answers_as_with_all(
    world: World,
    search_settings: SearchSettings,
    top_k: int,
    held: int,
    has_ties: bool,
    data: st.DataObject,
) -> None:
    model = ImpossibleEngine(-np.inf) if has_ties else world.engine
    ignored = data.draw(st.sets(st.integers(0, max(world.rows)), max_size=3).map(sorted))
    answers: list[list[object]] = []
    masses = []
    for engine in (model, FewRankedEngine(model, held)):
        engine.prefill(PROMPT, [])
        engine.pass_sizes.clear()
        search = replace(world, engine=engine).search(search_settings)
        results = [search.run(top_k), search.run(top_k, ignored_rows=ignored)]
        masses.append([result.frontier_log_mass for result in results])
        scores = search.score(sorted(set(world.rows)), token_budget=9)
        answers.append([engine.pass_sizes, scores.log_probs.tolist(), scores.exact.tolist()])
        for result in results:
            answers[-1] += [result.leaves.tolist(), result.log_probs.tolist()]
            answers[-1] += [result.exact, result.extended_tokens]
    assert answers[1] == answers[0]
    np.testing.assert_allclose(np.exp(masses[1]), np.exp(masses[0]), rtol=1e-13)


WIDE = 30  # tokens


@pytest.mark.parametrize("has_aliases", [False, True])
@pytest.mark.parametrize(
    "search_settings",
    [
        replace(BEAM, width=1),
        replace(EXACT, width=1),
        replace(EXACT, width=3),
        replace(EXACT, width=3, token_budget=8),
    ],
    ids=["beam", "exact", "exact of 3", "little budget"],
)
def test_what_is_left_out_changes_no_proof(
    search_settings: SearchSettings, has_aliases: bool
) -> None:
    left_out = proofs = 0
    for seed in range(120):
        random = np.random.default_rng([seed, has_aliases])
        names = {(int(first),) for first in random.permutation(np.arange(1, WIDE))[:24]}
        names |= {(*random.integers(1, WIDE, 2).tolist(),) for _ in range(12)}
        owners = np.arange(len(names)) // (1 + has_aliases)
        model = TableEngine(WIDE, seed=seed, scale=float(random.choice([0.3, 2.0, 4.0])))
        world = make_world(sorted(names), random.permutation(owners).tolist(), engine=model)
        few = FewRankedEngine(model, int(random.integers(1, 21)))
        top_k = int(random.integers(1, 12))
        answers = [
            replace(world, engine=engine).search(search_settings).run(top_k)
            for engine in (model, few)
        ]
        assert answers[1].leaves.tolist() == answers[0].leaves.tolist()
        assert answers[1].log_probs.tolist() == answers[0].log_probs.tolist()
        assert answers[1].exact == answers[0].exact
        if answers[1].exact:
            truth = sorted(world.probabilities().values(), reverse=True)
            shown = world.rows_found(answers[1])[:top_k]
            sums = world.sums(answers[1])
            np.testing.assert_allclose([sums[row] for row in shown], truth[:top_k], rtol=1e-4)
        left_out += few.reads == 0
        proofs += answers[1].exact
    assert left_out > 10 or has_aliases
    assert proofs > 0 or search_settings.mode is SearchMode.BEAM


def test_an_advertiser_of_open_prefixes_that_are_left_out_refutes_a_proof() -> None:
    """Names 2, 3 and 4 of advertiser 1 add up to 0.57; the table begins with 1 and 2."""
    model = ChosenEngine({1: 0.40, 2: 0.20, 3: 0.19, 4: 0.18})
    world = make_world([(1,), (2,), (3,), (4,)], [0, 1, 1, 1], engine=FewRankedEngine(model, 2))
    result = world.search(replace(BEAM, width=1)).run(1)
    assert (world.rows_found(result), result.exact) == ([0], False)


def test_where_all_names_are_found_an_engine_has_nothing_to_extend_ahead() -> None:
    class AheadEngine(TableEngine):
        """Says that it has extended what it was asked for."""

        def prefill(
            self,
            prompt_ids: Sequence[int],
            next_tokens: npt.ArrayLike,
            first_step: FirstStep | None = None,
        ) -> tuple[TableState, RankedTokens]:
            state, ranked = super().prefill(prompt_ids, next_tokens)
            return state, replace(ranked, extended=2)

    engine, trie = AheadEngine(VOCABULARY), Trie.build([(1,), (2,)], range(2))
    result = TrieSearch(engine, trie, read_prompt(engine, trie, PROMPT), EXACT).run(1)
    assert (result.exact, result.extended_tokens, engine.pass_sizes) == (True, 0, [])


class BranchedEngine(ChosenEngine):
    """Token 1 ends or continues in two ways."""

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        if path != (1,):
            return super().log_probs(path)
        return np.log(np.array([0.2, 0.4, 0.39, *[0.0025] * 4], dtype=np.float32))


@pytest.mark.parametrize("held", [3, 4], ids=["some tokens", "all tokens"])
def test_a_beam_stays_at_its_depth_when_the_table_takes_in_other_tokens(held: int) -> None:
    """The proof asks for four open prefixes after the first pass; token 4 is more probable."""
    model = BranchedEngine({1: 0.3, 2: 0.05, 3: 0.1, 4: 0.25})
    engine = FewRankedEngine(model, held)
    names = [(1,), (1, 1), (1, 2), (2,), (3,), (4,)]
    world = make_world(names, [0, 1, 1, 2, 1, 1], engine=engine)
    result = world.search(replace(BEAM, width=1)).run(1)
    paths = world.trie.paths(result.leaves)[0]
    assert [row[row >= 0].tolist() for row in paths] == [[1, 1, END], [1, END]]


def test_a_wrong_number_of_ranked_tokens_is_refused() -> None:
    class WrongEngine(TableEngine):
        def prefill(
            self,
            prompt_ids: Sequence[int],
            next_tokens: npt.ArrayLike,
            first_step: FirstStep | None = None,
        ) -> tuple[TableState, RankedTokens]:
            return super().prefill(prompt_ids, np.asarray(next_tokens)[1:])

    world = make_world([(1,), (2,)], engine=WrongEngine(VOCABULARY))
    with pytest.raises(ModelOutputError, match="after the prompt: found 1, expected 2"):
        world.search(BEAM)


@settings(max_examples=150)
@given(worlds(), st.sampled_from(MODES), st.integers(1, 8), st.integers(0, 60))
def test_names_of_no_probability_are_searched_like_others(
    world: World, search_settings: SearchSettings, top_k: int, budget: int
) -> None:
    engine = ImpossibleEngine(-np.inf)
    world = replace(world, engine=engine)
    engine.prefill(PROMPT, [])
    search = world.search(replace(search_settings, candidate_token_budget=budget))
    result = search.run(top_k)
    truth = world.probabilities()
    eligible = sorted((p for r, p in truth.items() if r not in world.excluded), reverse=True)
    assert np.isfinite(result.log_probs).all()
    if result.exact:
        shown = world.rows_found(result)[:top_k]
        assert len(shown) == min(top_k, len(eligible))
        np.testing.assert_allclose([truth[row] for row in shown], eligible[:top_k], rtol=1e-4)
    outside = math.exp(result.frontier_log_mass)
    assert np.exp(result.log_probs).sum() + outside >= sum(truth.values()) - 1e-6
    rows = sorted(truth)
    scores = search.score(rows)
    assert scores.exact.all() or budget < sum(map(len, world.paths))
    for row, log_prob, exact in zip(rows, scores.log_probs, scores.exact, strict=True):
        assert math.exp(log_prob) >= truth[row] - 1e-6
        assert not exact or math.isclose(math.exp(log_prob), truth[row], rel_tol=1e-4)


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 1]], ids=["one name each", "two names of one"])
@pytest.mark.parametrize("mode", SearchMode)
def test_a_candidates_score_equals_the_forecasts_even_if_tiny(
    rows: list[int], mode: SearchMode
) -> None:
    """A probability below e^-745 is 0 in double precision, but its log is an ordinary number."""
    steps = -300.25 - np.arange(VOCABULARY, dtype=np.float32)

    class SmallEngine(TableEngine):
        def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
            return steps

    engine = SmallEngine(VOCABULARY)
    names = [(1, 2, END), (1, 3, END), (4, 2, END)]
    trie = Trie.build(names, rows)
    search = TrieSearch(
        engine,
        trie,
        read_prompt(engine, trie, PROMPT),
        SearchSettings(mode=mode, width=8, token_budget=99),
    )
    result = search.run(3)
    truth = dict.fromkeys(rows, -np.inf)
    for name, row in zip(names, rows, strict=True):
        truth[row] = np.logaddexp(truth[row], sum(float(steps[token]) for token in name))
    scores = search.score(sorted(truth))
    assert scores.exact.all()
    np.testing.assert_allclose(scores.log_probs, [truth[row] for row in sorted(truth)], rtol=1e-12)
    assert max(truth.values()) < -900
    found = dict.fromkeys(truth, -np.inf)
    for leaf, score in zip(result.leaves, result.log_probs, strict=True):
        row = int(trie.leaf_advertiser[leaf])
        found[row] = np.logaddexp(found[row], score)
    for row, log_prob in zip(sorted(truth), scores.log_probs, strict=True):
        assert np.float32(found[row]) == np.float32(log_prob)
    unscored = TrieSearch(engine, trie, read_prompt(engine, trie, PROMPT), BEAM).score(
        [*truth], token_budget=0
    )
    assert np.isfinite(unscored.log_probs).all()
    assert (unscored.log_probs >= [truth[row] for row in truth]).all()


def test_a_candidate_below_an_impossible_prefix_is_impossible() -> None:
    engine = ImpossibleEngine(-np.inf, depth=0)
    possible = np.isfinite(engine.log_probs(()))
    assert 0 < possible.sum() < VOCABULARY - 1
    world = make_world([(token, 3) for token in range(1, VOCABULARY)], engine=engine)
    search = world.search(replace(BEAM, width=1))
    search.run(1)
    scores = search.score(np.arange(VOCABULARY - 1))
    assert scores.exact.all()
    np.testing.assert_array_equal(np.exp(scores.log_probs) > 0, possible[1:])


@pytest.mark.parametrize("mode", SearchMode)
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_infinity_ends_the_search(value: float, depth: int, mode: SearchMode) -> None:
    world = replace(make_world(NAMES_OF_FOUR), engine=ImpossibleEngine(value, depth))
    with pytest.raises(ModelOutputError, match="found NaN or"):
        world.search(SearchSettings(mode=mode, width=8)).run(2)
