from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie, as_matrix
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import Beams, DropReason
from adprior_runtime.forecast.decode_step import DecodedForecast, DecodeStep
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.table_engine import END, TableEngine, aliased_catalogues

VOCABULARY = 7
PROMPT = (2, 5)
FIRST_ID, ID_STEP = 100, 10
Tokens = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """A catalogue, aliases included, and a stand-in for a language model."""

    names: dict[Tokens, int]
    engine: TableEngine
    trie: Trie
    step: DecodeStep

    def truth(self) -> dict[int, float]:
        """Return every advertiser's probability, by id."""
        sums: dict[int, float] = {}
        for path, row in self.names.items():
            key = FIRST_ID + ID_STEP * row
            sums[key] = sums.get(key, 0.0) + math.exp(self.engine.path_log_prob(path))
        return sums

    def search(self, search_settings: SearchSettings, top_k: int, excluded: Sequence[int]) -> Beams:
        rows = [(key - FIRST_ID) // ID_STEP for key in excluded]
        search = TrieSearch(
            self.engine,
            self.trie,
            read_prompt(self.engine, self.trie, PROMPT),
            search_settings,
            excluded_rows=rows,
        )
        result = search.run(top_k)
        tokens, lengths = self.trie.paths(result.leaves)
        return Beams(
            output_ids=tokens,
            lengths=lengths,
            log_probs=result.log_probs,
            proved_top_k=top_k if result.exact else 0,
            frontier_log_mass=result.frontier_log_mass,
        )

    def decode(self, beams: Beams, top_k: int, excluded: Sequence[int] = ()) -> DecodedForecast:
        return self.step.run(beams, top_k=top_k, excluded_ids=np.array(excluded, dtype=np.int64))


def _beams(paths: Sequence[Sequence[int]], log_probs: Sequence[float], **proof: Any) -> Beams:
    tokens, lengths = as_matrix(paths)
    return Beams(
        output_ids=tokens,
        lengths=lengths.astype(np.int32),
        log_probs=np.array(log_probs, dtype=np.float64),
        **proof,
    )


def _world(names: dict[Tokens, int], engine: TableEngine | None = None) -> World:
    engine = engine or TableEngine(VOCABULARY)
    engine.prefill(PROMPT, [])
    rows = list(names.values())
    count = max(rows) + 1
    trie = Trie.build(list(names), rows)
    advertisers = Advertisers.build(
        [FIRST_ID + ID_STEP * row for row in range(count)],
        [f"name {row}" for row in range(count)],
        [rows.count(row) for row in range(count)],
        [0] * count,
    )
    step = DecodeStep(trie, advertisers, output_length=trie.depth)
    return World(names=names, engine=engine, trie=trie, step=step)


@st.composite
def requests(draw: st.DrawFn) -> tuple[World, int, list[int]]:
    """Draw a world, a k that may exceed the catalogue, and exclusions from the catalogue."""
    world = _world(*draw(aliased_catalogues(vocabulary=VOCABULARY)))
    excluded = draw(st.lists(st.sampled_from(sorted(world.truth())), max_size=6))
    return world, draw(st.integers(1, 30)), excluded


def _check(world: World, forecast: DecodedForecast, top_k: int, excluded: Sequence[int]) -> None:
    """Compare a forecast with the probabilities of the whole catalogue."""
    truth = world.truth()
    eligible = {key: p for key, p in truth.items() if key not in excluded}
    ids = forecast.advertiser_ids.tolist()
    shown = np.exp(forecast.log_probs.astype(np.float64))
    assert len(set(ids)) == len(ids) <= top_k
    assert set(ids) <= set(eligible)
    assert (np.diff(forecast.log_probs) <= 0).all()
    assert [name.decode() for name in forecast.names] == [
        f"name {(key - FIRST_ID) // ID_STEP}" for key in ids
    ]
    assert all(p <= truth[key] + 1e-6 for key, p in zip(ids, shown, strict=True))
    assert 0 <= forecast.missing_mass <= 1
    assert forecast.missing_mass >= sum(truth.values()) - shown.sum() - 1e-6
    if forecast.exact:
        best = sorted(eligible.values(), reverse=True)[:top_k]
        np.testing.assert_allclose(shown, best, atol=1e-6)
        np.testing.assert_allclose(shown, [truth[key] for key in ids], atol=1e-6)


@settings(max_examples=120)
@given(requests(), st.sampled_from(SearchMode), st.sampled_from([1, 2, 4, 64]), st.booleans())
def test_a_certificate_holds_after_a_search(
    request_: tuple[World, int, list[int]], mode: SearchMode, width: int, search_knows: bool
) -> None:
    world, top_k, excluded = request_
    search_settings = SearchSettings(mode=mode, width=width, token_budget=40)
    beams = world.search(search_settings, top_k, excluded if search_knows else ())
    forecast = world.decode(beams, top_k, excluded)
    _check(world, forecast, top_k, excluded)
    if search_knows:
        assert forecast.exact == (beams.proved_top_k == top_k)


@settings(max_examples=60)
@given(requests())
def test_a_whole_catalogue_is_always_certified(request_: tuple[World, int, list[int]]) -> None:
    world, _, excluded = request_
    everything = SearchSettings(mode=SearchMode.EXACT, width=64, token_budget=1000)
    beams = world.search(everything, len(world.names), excluded)
    forecast = world.decode(beams, len(world.names), excluded)
    assert forecast.exact
    assert len(forecast.advertiser_ids) == len(world.truth().keys() - set(excluded))
    _check(world, forecast, len(world.names), excluded)
    if not excluded:
        assert math.isclose(forecast.missing_mass, 0, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("search_settings", "least", "most"),
    [
        (SearchSettings(mode=SearchMode.BEAM, width=1), 0, 2),
        (SearchSettings(mode=SearchMode.BEAM, width=24), 10, 36),
        (SearchSettings(mode=SearchMode.EXACT, width=3), 38, 40),
    ],
)
def test_the_further_a_search_goes_the_more_often_it_is_certified(
    search_settings: SearchSettings, least: int, most: int
) -> None:
    random = np.random.default_rng(5)
    certified = 0
    for seed in range(40):
        paths = {(*random.integers(1, VOCABULARY, size=3).tolist(), END) for _ in range(60)}
        names = {path: number % 40 for number, path in enumerate(sorted(paths))}
        world = _world(names, TableEngine(VOCABULARY, seed=seed, scale=3.0))
        certified += world.decode(world.search(search_settings, 3, ()), top_k=3).exact
    assert least <= certified <= most


@settings(max_examples=60)
@given(requests(), st.data())
def test_the_order_of_beams_changes_nothing_and_repeated_ones_are_dropped(
    request_: tuple[World, int, list[int]], data: st.DataObject
) -> None:
    world, top_k, excluded = request_
    search_settings = SearchSettings(mode=SearchMode.BEAM, width=2)
    beams = world.search(search_settings, top_k, ())
    count = len(beams.lengths)
    again = data.draw(st.lists(st.sampled_from(range(count))))
    order = np.array(data.draw(st.permutations([*range(count), *again])))
    shuffled = Beams(
        output_ids=beams.output_ids[order],
        lengths=beams.lengths[order],
        log_probs=beams.log_probs[order],
        frontier_log_mass=beams.frontier_log_mass,
    )
    first = world.decode(beams, top_k, excluded)
    second = world.decode(shuffled, top_k, excluded)
    np.testing.assert_allclose(second.log_probs, first.log_probs, rtol=1e-5)
    assert math.isclose(second.missing_mass, first.missing_mass, abs_tol=1e-6)
    assert not first.dropped
    assert second.dropped == ({DropReason.DUPLICATE: len(again)} if again else {})


# Advertiser 100 has two names, of which one lies below the prefix (2,).
SMALL = {(1, END): 0, (2, 3, END): 0, (3, END): 1, (4, END): 2}


def _decode(
    found: dict[Tokens, float], frontier: float | None, top_k: int, proved_top_k: int = 0, **of: Any
) -> DecodedForecast:
    mass = None if frontier is None else math.log(frontier)
    logs = [math.log(p) for p in found.values()]
    beams = _beams([*found], logs, frontier_log_mass=mass, proved_top_k=proved_top_k)
    return _world(SMALL).decode(beams, top_k, **of)


ALL_FOUND = {(1, END): 0.2, (2, 3, END): 0.1, (3, END): 0.25, (4, END): 0.15}


@pytest.mark.parametrize(
    ("proved", "frontier", "excluded", "exact"),
    [
        (2, 0.05, [], True),
        (2, 0.05, [7], True),  # no advertiser of the catalogue
        (0, 0.05, [], False),
        (1, 0.05, [], False),
        (3, 0.05, [], False),
        (2, None, [], False),
        (2, 0.05, [120], False),  # the search did not know of it
    ],
)
def test_only_a_proof_of_the_same_request_certifies(
    proved: int, frontier: float | None, excluded: list[int], exact: bool
) -> None:
    assert _decode(ALL_FOUND, frontier, 2, proved, excluded=excluded).exact is exact


def test_a_proof_beside_beams_that_are_dropped_certifies_nothing() -> None:
    beams = _beams([[3, END], [3, END]], [-1.0, -1.0], proved_top_k=1, frontier_log_mass=-2.0)
    assert not _world(SMALL).decode(beams, 1).exact


def test_names_of_one_advertiser_add_up() -> None:
    forecast = _decode({(1, END): 0.2, (3, END): 0.25, (2, 3, END): 0.1}, 0.05, 2)
    assert forecast.advertiser_ids.tolist() == [100, 110]
    assert forecast.names == [b"name 0", b"name 1"]
    np.testing.assert_allclose(np.exp(forecast.log_probs), [0.3, 0.25], rtol=1e-6)
    assert math.isclose(forecast.missing_mass, 0.05, rel_tol=1e-6)


def test_found_advertisers_that_are_not_shown_count_as_missing_mass() -> None:
    assert math.isclose(_decode(ALL_FOUND, 0.05, 1).missing_mass, 0.45, rel_tol=1e-6)
    excluding = _decode(ALL_FOUND, 0.05, 2, excluded=[100, 100, 7])
    assert excluding.advertiser_ids.tolist() == [110, 120]
    assert math.isclose(excluding.missing_mass, 0.35, rel_tol=1e-6)


def test_everyone_excluded_leaves_an_empty_and_certain_forecast() -> None:
    world, everyone = _world(SMALL), [100, 110, 120]
    beams = world.search(SearchSettings(mode=SearchMode.BEAM), 5, everyone)
    forecast = world.decode(beams, 5, everyone)
    assert (forecast.advertiser_ids.tolist(), forecast.names) == ([], [])
    assert forecast.exact


def test_beams_of_no_advertiser_are_dropped_and_counted() -> None:
    # Paths of 3 tokens, the output length, that have no terminator are cut off.
    found = {
        (1, END): 0.3,
        (1, 1, 1): 0.1,
        (5, END): 0.1,
        (1, 3, 2): 0.1,
        (6, 6, 6): 0.1,
        (2, END): 0.1,
    }
    forecast = _decode(found, None, 5)
    assert forecast.advertiser_ids.tolist() == [100]
    assert forecast.dropped == {DropReason.INCOMPLETE: 3, DropReason.OFF_CATALOGUE: 2}
    # What is known to go to no advertiser is not missing.
    assert math.isclose(forecast.missing_mass, 1 - 0.3 - 0.1 - 0.1, rel_tol=1e-6)


def test_a_beam_that_comes_twice_counts_once() -> None:
    beams = _beams([[3, END], [3, END], [5, END], [5, END]], np.log([0.3, 0.3, 0.2, 0.2]).tolist())
    forecast = _world(SMALL).decode(beams, 2)
    np.testing.assert_allclose(np.exp(forecast.log_probs), [0.3], rtol=1e-6)
    assert math.isclose(forecast.missing_mass, 0.5, rel_tol=1e-6)
    assert forecast.dropped == {DropReason.DUPLICATE: 2, DropReason.OFF_CATALOGUE: 1}


@pytest.mark.parametrize(
    "log_probs", [[0.0, 0.0], np.log([0.4, 0.4, 0.4]).tolist()], ids=["zeros", "normalised"]
)
def test_beams_that_cannot_be_probabilities_are_refused(log_probs: list[float]) -> None:
    """TensorRT-LLM returns such values without ``return_log_probs``, or divided by the length."""
    paths = [[3, END], [4, END], [5, END]][: len(log_probs)]
    with pytest.raises(ModelOutputError, match=r"distinct beams sum to .* expected at most 1"):
        _world(SMALL).decode(_beams(paths, log_probs), 2)


@st.composite
def stock_beams(draw: st.DrawFn) -> tuple[World, list[Tokens], int]:
    """Draw a world, beams of a search without the catalogue, and their output length.

    A beam is tokens without a terminator, and complete where it is shorter than that length.
    """
    world = _world(*draw(aliased_catalogues(vocabulary=VOCABULARY)))
    length = world.trie.depth
    token = st.integers(1, VOCABULARY - 1)
    name = st.sampled_from(sorted(world.names)).map(lambda path: path[:-1])
    other = st.lists(token, max_size=length).map(tuple)
    beams = draw(st.lists(name | other, max_size=20))
    return world, beams, length


@settings(max_examples=150)
@given(stock_beams(), st.integers(1, 30), st.booleans())
def test_a_forecast_from_stock_beams_sums_their_distinct_complete_ones(
    drawn: tuple[World, list[Tokens], int], top_k: int, keeps_terminator: bool
) -> None:
    world, beams, length = drawn
    complete = {(*beam, END) for beam in beams if len(beam) < length}
    score = {path: world.engine.path_log_prob(path) for path in complete}
    log_probs = [
        score[*beam, END] if len(beam) < length else world.engine.path_log_prob(beam)
        for beam in beams
    ]
    given_out = [
        [*beam, END, 3] if keeps_terminator and len(beam) < length else [*beam] for beam in beams
    ]
    forecast = world.decode(_beams(given_out, log_probs), top_k)

    expected: dict[int, float] = {}
    for path in complete & world.names.keys():
        key = FIRST_ID + ID_STEP * world.names[path]
        expected[key] = expected.get(key, 0.0) + math.exp(score[path])
    best = sorted(expected, key=lambda key: (-expected[key], key))[:top_k]
    shown = np.exp(forecast.log_probs.astype(np.float64))
    assert not forecast.exact
    np.testing.assert_allclose(shown, [expected[key] for key in best], rtol=1e-5)
    assert set(forecast.advertiser_ids.tolist()) <= set(expected)
    hidden = sum(expected.values()) - sum(expected[key] for key in best)
    unseen = 1 - sum(math.exp(value) for value in score.values())
    assert math.isclose(forecast.missing_mass, max(unseen + hidden, 0), abs_tol=1e-6)
    # The bound holds: what the catalogue has and the answer does not is at most that.
    assert forecast.missing_mass >= sum(world.truth().values()) - shown.sum() - 1e-6
    assert forecast.dropped == {
        reason: count
        for reason, count in {
            DropReason.INCOMPLETE: sum(len(beam) >= length for beam in beams),
            DropReason.OFF_CATALOGUE: len(complete - world.names.keys()),
            DropReason.DUPLICATE: sum(len(beam) < length for beam in beams) - len(complete),
        }.items()
        if count
    }


def test_equally_probable_advertisers_come_by_rising_id() -> None:
    forecast = _decode({(4, END): 0.25, (3, END): 0.25}, 0.05, 2)
    assert forecast.advertiser_ids.tolist() == [110, 120]


def test_rounding_gives_no_probability_above_one() -> None:
    forecast = _world(SMALL).decode(_beams([[3, END]], [1e-5]), 1)
    assert forecast.log_probs.tolist() == [0.0]
    assert forecast.missing_mass == 0.0


def test_no_beams_are_no_forecast() -> None:
    forecast = _decode({}, None, 3)
    assert (len(forecast.advertiser_ids), forecast.exact) == (0, False)
    assert (forecast.missing_mass, forecast.dropped) == (1.0, {})
