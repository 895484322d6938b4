from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.catalogue.trie import Trie

END = 0
LARGEST_TOKEN = 2**31 - 1
Path_ = tuple[int, ...]
TOKENS = st.integers(1, 4) | st.sampled_from([100, LARGEST_TOKEN])
PATHS = st.lists(TOKENS, min_size=0, max_size=5).map(lambda name: (*name, END))


@st.composite
def catalogues(draw: st.DrawFn) -> dict[Path_, int]:
    """Draw different terminated paths, with rows from 0 without a gap; a name may begin another."""
    paths = draw(st.lists(PATHS, min_size=1, max_size=40, unique=True))
    advertisers = draw(st.integers(1, len(paths)))
    others = st.lists(
        st.integers(0, advertisers - 1),
        min_size=len(paths) - advertisers,
        max_size=len(paths) - advertisers,
    )
    rows = draw(st.permutations([*range(advertisers), *draw(others)]))
    return dict(zip(paths, rows, strict=True))


def _build(catalogue: dict[Path_, int]) -> Trie:
    return Trie.build(list(catalogue), list(catalogue.values()))


def _prefixes(catalogue: dict[Path_, int]) -> list[Path_]:
    """List every prefix, including the empty one, the shortest first, then by tokens."""
    prefixes = {path[:length] for path in catalogue for length in range(len(path) + 1)}
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))


def _find(trie: Trie, paths: Sequence[Path_]) -> list[int]:
    lengths = np.array([len(path) for path in paths], dtype=np.int32)
    tokens = np.full((len(paths), max(lengths, default=0)), 3, dtype=np.int32)
    for row, path in enumerate(paths):
        tokens[row, : len(path)] = path
    found: list[int] = trie.find(tokens, lengths).tolist()
    return found


def test_one_long_name_costs_only_its_own_tokens() -> None:
    """A matrix of 20,000 names would be as wide as the longest: 20 MB, and 60 MB to sort it."""
    random = np.random.default_rng(0)
    names = {(*row, END) for row in random.integers(1, 9000, (20_000, 4)).tolist()}
    paths = [*sorted(names), tuple([5] * 255 + [END])]
    tracemalloc.start()
    try:
        trie = Trie.build(paths, range(len(paths)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert trie.depth == 256
    assert trie.lookup(paths[-1]) == len(paths) - 1
    assert peak < 100 * sum(map(len, paths))


@settings(max_examples=50)
@given(catalogues(), st.lists(PATHS | st.lists(st.integers(-1, 9), max_size=6).map(tuple)))
def test_lookup_finds_exactly_the_catalogues_paths(
    catalogue: dict[Path_, int], others: list[Path_]
) -> None:
    trie = _build(catalogue)
    for path, row in catalogue.items():
        assert trie.lookup(path) == row
        extensions = [(*path, END), (*path, 1)]
        others = [*others, *extensions, *(path[:length] for length in range(len(path)))]
    for path in others:
        assert trie.lookup(path) == catalogue.get(path, -1)


@settings(max_examples=50)
@given(catalogues())
def test_the_order_of_the_catalogue_does_not_matter(catalogue: dict[Path_, int]) -> None:
    reversed_ = dict(reversed(catalogue.items()))
    first, second = _build(catalogue), _build(reversed_)
    for name in ("offsets", "child_tokens", "leaf_advertiser", "leaf_offsets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@settings(max_examples=50)
@given(catalogues())
def test_nodes_are_the_prefixes_breadth_first_with_tokens_rising(
    catalogue: dict[Path_, int],
) -> None:
    trie, prefixes = _build(catalogue), _prefixes(catalogue)
    number = {prefix: node for node, prefix in enumerate(prefixes)}
    assert len(trie.leaf_advertiser) == len(prefixes)
    assert (len(trie.offsets), len(trie.child_tokens)) == (len(prefixes) + 1, len(prefixes) - 1)
    assert (trie.offsets[0], trie.offsets[-1]) == (0, len(prefixes) - 1)
    assert (np.diff(trie.offsets) >= 0).all()
    for node, prefix in enumerate(prefixes):
        tokens, children = trie.children(node)
        below = [p for p in prefixes if len(p) == len(prefix) + 1 and p[:-1] == prefix]
        assert tokens.tolist() == [path[-1] for path in below]
        assert (np.diff(tokens) > 0).all()
        assert children.tolist() == [number[path] for path in below]
        assert trie.leaf_advertiser[node] == catalogue.get(prefix, -1)
        assert trie.are_leaves(np.array([node])).tolist() == [prefix in catalogue]


@settings(max_examples=50)
@given(catalogues())
def test_the_roots_children_are_the_first_nodes(catalogue: dict[Path_, int]) -> None:
    trie = _build(catalogue)
    assert trie.first_nodes.tolist() == trie.children(0)[1].tolist()
    assert trie.has_names_of_one_token == any(len(path) == 1 for path in catalogue)


@settings(max_examples=50)
@given(catalogues())
def test_paths_and_nodes_lead_to_each_other(catalogue: dict[Path_, int]) -> None:
    trie, prefixes = _build(catalogue), _prefixes(catalogue)
    tokens, lengths = trie.paths(np.arange(len(prefixes)))
    assert [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths, strict=True)] == prefixes
    assert (tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] == -1).all()
    assert _find(trie, prefixes) == list(range(len(prefixes)))
    parents = [prefixes.index(prefix[:-1]) for prefix in prefixes[1:]]
    assert trie.parents(np.arange(1, len(prefixes))).tolist() == parents


@settings(max_examples=50)
@given(catalogues())
def test_ancestors_run_from_below_the_root_to_the_node(catalogue: dict[Path_, int]) -> None:
    trie, prefixes = _build(catalogue), _prefixes(catalogue)
    for prefix, row in zip(prefixes, trie.ancestors(np.arange(len(prefixes))), strict=True):
        lineage = [prefixes.index(prefix[:length]) for length in range(1, len(prefix) + 1)]
        assert row.tolist() == [0] * (len(row) - len(lineage)) + lineage


@settings(max_examples=50)
@given(catalogues(), st.data())
def test_leaves_of_advertisers_are_their_names(
    catalogue: dict[Path_, int], data: st.DataObject
) -> None:
    trie, prefixes = _build(catalogue), _prefixes(catalogue)
    rows = data.draw(st.permutations(sorted(set(catalogue.values()))))
    rows = rows[: data.draw(st.integers(0, len(rows)))]
    leaves, owners = trie.leaves_of(np.array(rows, dtype=np.int64))
    found = [(prefixes[leaf], rows[owner]) for leaf, owner in zip(leaves, owners, strict=True)]
    assert sorted(found) == sorted((path, row) for path, row in catalogue.items() if row in rows)


@settings(max_examples=50)
@given(catalogues(), st.data())
def test_covered_nodes_have_all_their_leaves_in_the_given_set(
    catalogue: dict[Path_, int], data: st.DataObject
) -> None:
    trie, prefixes = _build(catalogue), _prefixes(catalogue)
    given_ = data.draw(st.sets(st.sampled_from(list(catalogue))))
    expected = [
        node
        for node, prefix in enumerate(prefixes)
        if node > 0 and all(p in given_ for p in catalogue if p[: len(prefix)] == prefix)
    ]
    assert trie.covered([prefixes.index(path) for path in given_]).tolist() == expected


@settings(max_examples=50)
@given(catalogues())
def test_depth_and_most_paths_are_the_catalogues(catalogue: dict[Path_, int]) -> None:
    trie = _build(catalogue)
    rows = list(catalogue.values())
    assert trie.depth == max(map(len, catalogue))
    assert trie.most_paths == max(map(rows.count, rows))


def test_lookups_of_a_request_copy_no_array_of_the_catalogue() -> None:
    count = 50_000
    paths = [(1 + number % 250, 1 + number // 250, END) for number in range(count)]
    trie = Trie.build(paths, np.arange(count))
    assert trie.offsets.nbytes > 100 * 2**10
    tracemalloc.start()
    try:
        leaves, _ = trie.leaves_of([5, 70, 900])
        trie.ancestors(leaves)
        trie.paths(leaves)
        trie.covered(leaves)
        trie.parents(leaves)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**10


def test_paths_may_come_from_a_generator() -> None:
    paths = [(2, END), (1, END)]
    assert Trie.build(iter(paths), [0, 1]).lookup((1, END)) == 1
