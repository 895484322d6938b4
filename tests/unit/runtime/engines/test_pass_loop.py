from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import ROOT, LogProbs
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass
from adprior_runtime.engines.pass_loop import JOINED_CELLS, PassLoop, SharedPasses
from adprior_runtime.engines.prompt_pass import PromptPass
from adprior_runtime.engines.tree_pass import TreePass
from adprior_runtime.errors import DeviceFullError

VOCABULARY = 20


class Cache:
    """Stands in for a cache: it keeps nothing."""

    def fork(self) -> Cache:
        return self


class CountedPasses:
    """Passes of no model, which note the tokens of each user's part.

    One token is a fault, and so are more users than the memory holds.
    """

    def __init__(self, faulty: int = -1, *, fails_late: bool = False, room: int = 99) -> None:
        self.sizes: list[list[int]] = []
        self._faulty, self._fails_late, self._room = faulty, fails_late, room

    def empty_cache(self) -> Cache:
        return Cache()

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[LogProbs]]:
        tokens = [part.tree_pass.token_ids for part in parts]
        self.sizes.append([len(each) for each in tokens])
        if len(parts) > self._room:
            raise DeviceFullError("device cuda: out of memory")
        is_faulty = any(self._faulty in each for each in tokens)
        if is_faulty and not self._fails_late:
            raise RuntimeError("no memory")

        def wait() -> list[LogProbs]:
            if is_faulty:
                raise RuntimeError("no memory")
            return [-part.tree_pass.pair_tokens.astype(np.float32) for part in parts]

        return wait


def _engine(passes: CountedPasses) -> PackedTreeEngine:
    return PackedTreeEngine(SharedPasses(passes), vocabulary=VOCABULARY, max_positions=2_000)


def _search(
    engine: PackedTreeEngine, prompt: int, passes: int, answers: list[Any], token: int = 1
) -> Callable[[], None]:
    """Return a search that reads a prompt, extends three tokens a few times, and answers."""

    def search() -> None:
        try:
            state, ranked = engine.prefill([1] * prompt, [3])
            found = ranked.read_all()
            for _ in range(passes):
                found = engine.extend(state, [1, token, 1], [ROOT] * 3, [2], [5])
            answers.append((prompt, found.tolist()))
        except (RuntimeError, DeviceFullError) as error:
            answers.append((prompt, str(error)))

    return search


def test_searches_with_passes_about_as_long_share_them() -> None:
    passes, answers = CountedPasses(), list[Any]()
    engine = _engine(passes)
    PassLoop().run([_search(engine, prompt, 1, answers) for prompt in (50, 9, 64, 33)], most=8)
    # 33 to 64 tokens share a pass. The next one starts before that one is answered.
    assert passes.sizes == [[50, 64, 33], [9], [3, 3, 3], [3]]
    assert sorted(answers) == [(prompt, [-5.0]) for prompt in (9, 33, 50, 64)]


def test_a_search_is_admitted_when_another_has_ended() -> None:
    passes, answers = CountedPasses(), list[Any]()
    engine = _engine(passes)
    lengths = [(8, 0), (7, 3), (6, 0), (5, 0)]
    PassLoop().run([_search(engine, *each, answers) for each in lengths], most=2)
    assert [prompt for prompt, _ in answers] == [8, 6, 5, 7]
    assert max(map(len, passes.sizes)) == 2


def test_many_searches_are_split_in_two_passes() -> None:
    passes, answers = CountedPasses(), list[Any]()
    engine = _engine(passes)
    PassLoop().run([_search(engine, 8, 1, answers) for _ in range(17)], most=17)
    assert [len(users) for users in passes.sizes] == [9, 8, 9, 8]
    assert len(answers) == 17


def test_a_joined_pass_has_a_limit_and_a_long_one_runs_alone() -> None:
    passes, answers = CountedPasses(), list[Any]()
    engine = _engine(passes)
    loop = PassLoop(most_tokens=64)
    loop.run([_search(engine, prompt, 0, answers) for prompt in (16, 16, 16, 16, 16, 900)], most=9)
    assert passes.sizes == [[16] * 4, [16], [900]]


@pytest.mark.parametrize("fails_late", [False, True])
def test_a_fault_of_a_pass_is_raised_in_its_searches_only(fails_late: bool) -> None:
    passes, answers = CountedPasses(faulty=7, fails_late=fails_late), list[Any]()
    engine = _engine(passes)
    searches = [_search(engine, 8, 1, answers, token) for token in (1, 7)]
    searches.append(_search(engine, 30, 0, answers))
    loop = PassLoop()
    for search in searches:
        loop.admit(search)
    while len(loop):
        loop.step()
    assert sorted(answers, key=str) == [(30, [-3.0]), (8, "no memory"), (8, "no memory")]


def test_a_pass_that_the_device_has_no_memory_for_is_made_smaller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passes, answers = CountedPasses(room=2), list[Any]()
    engine = _engine(passes)
    PassLoop().run([_search(engine, 8, 1, answers) for _ in range(6)], most=6)
    assert [len(users) for users in passes.sizes[:3]] == [6, 3, 1]
    assert {len(users) for users in passes.sizes[3:]} == {1}
    assert answers == [(8, [-5.0])] * 6
    assert [record.getMessage() for record in caplog.records] == [
        f"device cuda: out of memory; passes have at most {most} users from now on"
        for most in (3, 1)
    ]


def test_a_single_users_pass_that_does_not_fit_fails_its_search_only() -> None:
    passes, answers = CountedPasses(room=0), list[Any]()
    PassLoop().run([_search(_engine(passes), prompt, 0, answers) for prompt in (8, 30)])
    assert answers == [(prompt, "device cuda: out of memory") for prompt in (8, 30)]


def test_a_refused_prompt_ends_its_own_search() -> None:
    engine = _engine(CountedPasses())
    refused = []

    def search() -> None:
        with pytest.raises(ValueError, match="next_tokens"):
            engine.prefill([1], [VOCABULARY])
        refused.append(True)

    loop = PassLoop()
    loop.admit(search)
    assert len(loop) == 0
    assert refused == [True]


def test_a_pass_without_tokens_asks_for_nothing() -> None:
    passes = CountedPasses()
    engine = _engine(passes)

    def search() -> None:
        state, _ = engine.prefill([1], [2])
        assert engine.extend(state, [], [], [], []).shape == (0,)

    PassLoop().run([search])
    assert passes.sizes == [[1]]


def test_outside_the_loop_a_pass_runs_alone() -> None:
    passes, answers = CountedPasses(), list[Any]()
    _search(_engine(passes), 4, 2, answers)()
    assert passes.sizes == [[4], [3], [3]]
    assert answers == [(4, [-5.0])]


class ReadPrompts(CountedPasses):
    """Also notes how many tokens each prompt's pass extends ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[list[int]] = []

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        assert len({type(part) for part in parts}) == 1
        self.widths.append([part.width for part in parts if isinstance(part, PromptPass)])
        return super().start(parts)


def _prompts(
    first: FirstTokens,
    lengths_and_widths: Sequence[tuple[int, int]],
    passes: ReadPrompts,
    head: int = 0,
) -> list[Callable[[], None]]:
    """Return searches that end when their prompt is read."""
    shared = SharedPasses(passes)

    def search(length: int, width: int) -> None:
        part = PromptPass(Cache(), _tree_pass(head, length), first=first, width=width)
        shared.read_prompt(part)

    return [partial(search, *each) for each in lengths_and_widths]


def _tree_pass(head: int, length: int) -> TreePass:
    places, empty = np.arange(head, head + length), np.zeros(0, dtype=np.int64)
    return TreePass.of(
        token_ids=np.ones(length, dtype=np.int64),
        positions=np.arange(head + length),
        visible=places + 1,
        seen=places[:, None],
        wanted=np.array([length - 1]),
        pair_rows=empty,
        pair_tokens=empty,
    )


def test_prompts_share_a_pass_if_they_begin_one_trie_and_are_about_as_wide() -> None:
    tries = [Trie.build([(3, 0), (4, 5, 0)], [0, 1]).first_tokens for _ in range(2)]
    passes = ReadPrompts()
    searches = _prompts(tries[0], [(9, 4), (12, 3), (16, 0), (9, 5)], passes)
    searches += _prompts(tries[1], [(9, 4)], passes)
    engine, answers = _engine(passes), list[Any]()
    PassLoop().run([*searches, _search(engine, 10, 0, answers)], most=9)
    assert passes.widths == [[4, 3], [0], [5], [4], []]
    assert passes.sizes == [[9, 12], [16], [9], [9], [10]]
    assert answers == [(10, [-3.0])]


def test_tokens_ahead_keep_the_limits_of_a_joined_pass() -> None:
    first, passes = Trie.build([(3, 0)], [0]).first_tokens, ReadPrompts()
    PassLoop(most_tokens=64).run(_prompts(first, [(4, 20)] * 5, passes))
    assert passes.widths == [[20, 20], [20, 20], [20]]  # 32 tokens each, padding included
    passes.widths.clear()
    head = JOINED_CELLS // 512 // 3 - 512 - 4  # has been read
    PassLoop().run(_prompts(first, [(4, 512)] * 5, passes, head))
    assert passes.widths == [[512] * 3, [512] * 2]


def test_a_search_that_has_ended_is_not_held() -> None:
    class Held:
        """Something that a search holds."""

    def search(_: Held) -> None:
        """Answer at once."""

    held = Held()
    gone = weakref.ref(held)
    loop = PassLoop()
    loop.admit(partial(search, held))
    assert len(loop) == 0
    del held
    assert gone() is None


def test_searches_that_fail_leave_room_for_others() -> None:
    passes, answers = CountedPasses(faulty=7), list[Any]()
    loop = PassLoop()
    loop.run([_search(_engine(passes), 8, 1, answers, 7) for _ in range(3)])
    loop.run([_search(_engine(passes), 8, 1, answers) for _ in range(3)])
    assert answers == [(8, "no memory")] * 3 + [(8, [-5.0])] * 3
