from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from adprior_build.torch_model.write_model import write_torch_model
from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines import prompt_pass, working_ahead
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.base import ROOT, FirstStep, LogProbs
from adprior_runtime.engines.joined_pass import PassSizes
from adprior_runtime.engines.packed_tree import UserPass
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.engines.prompt_pass import PromptAnswer, PromptPass, StepSizes
from adprior_runtime.engines.torch_cache import CacheBlock
from adprior_runtime.engines.torch_decoder import TorchDecoder
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.engines.torch_first_step import DeviceStep, DeviceTokens
from adprior_runtime.engines.torch_passes import TorchPasses, _device_faults
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.engines.working_ahead import AheadTree, WorkingAheadEngine
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.small_models import FAMILIES, MAX_POSITIONS, VOCABULARY, small_llama, weights_of
from support.stand_in_graphs import StandInRecorder

END = 0
EXACT = SearchSettings(width=4, token_budget=10_000)
BEAM = SearchSettings(mode=SearchMode.BEAM, width=4)
Make = Callable[[], Any]
_Float64Array = npt.NDArray[np.float64]


class CountedPasses(SharedPasses):
    """Passes that note what they are asked for: the tokens of each pass, in order.

    Attributes:
        prompts: Tokens of prompts that were read with a step, and how many it was to extend.
        sizes: Tokens of ordinary passes.
    """

    def __init__(self, passes: TorchPasses) -> None:
        super().__init__(passes)
        self.prompts: list[tuple[int, int]] = []
        self.sizes: list[int] = []

    def run(self, part: UserPass) -> LogProbs:
        self.sizes.append(len(part.tree_pass.token_ids))
        return super().run(part)

    def read_prompt(self, part: PromptPass) -> PromptAnswer:
        self.prompts.append((len(part.tree_pass.token_ids), part.width))
        return super().read_prompt(part)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One model and its files."""

    model: Any
    directory: Path
    plain: TorchEngine

    def passes(
        self, recorder: StandInRecorder | None = None, of: type[TorchPasses] = TorchPasses
    ) -> TorchPasses:
        cpu = torch.device("cpu")
        architecture = Architecture.load(self.directory / ARCHITECTURE_FILE)
        weights = DecoderWeights.load(self.directory / TORCH_WEIGHTS_FILE, architecture, cpu)
        passes = of(architecture, weights, cpu, (lambda: recorder) if recorder else None)
        if recorder:
            recorder.passes = passes
        return passes

    def ahead(
        self, recorder: StandInRecorder | None = None
    ) -> tuple[WorkingAheadEngine, CountedPasses]:
        passes = CountedPasses(self.passes(recorder))
        engine = WorkingAheadEngine(passes, vocabulary=VOCABULARY, max_positions=MAX_POSITIONS)
        return engine, passes

    def expected(self, token_ids: Sequence[int]) -> LogProbs:
        with torch.no_grad():
            logits = self.model(torch.tensor([list(token_ids)])).logits[0, -1]
        found: LogProbs = torch.log_softmax(logits, dim=-1).numpy()
        return found


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: such small models would wait for a second one longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Written]:
    """Return a function that writes each model once."""

    @cache
    def write_once(make: Make) -> Written:
        model, directory = make(), tmp_path_factory.mktemp("torch")
        write_torch_model(model.config.to_dict(), weights_of(model), directory)
        return Written(model=model, directory=directory, plain=TorchEngine(directory, threads=1))

    return write_once


@pytest.fixture(scope="module", params=FAMILIES)
def each(request: pytest.FixtureRequest, write: Callable[[Make], Written]) -> Written:
    return write(request.param)


@pytest.fixture(scope="module")
def llama(write: Callable[[Make], Written]) -> Written:
    return write(small_llama)


def _random_ids(seed: int, size: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, size=size).tolist()
    return ids


def _trie(seed: int, *, tokens: int = 20, names: int = 150) -> Trie:
    random = np.random.default_rng(seed)
    paths = sorted(
        {(*random.integers(1, tokens, random.integers(1, 5)).tolist(),) for _ in range(names)}
    )
    return Trie.build([(*path, END) for path in paths], np.arange(len(paths)) // 2)  # with aliases


def _best_first_advertisers(engine: Any, trie: Trie, prompt: list[int], count: int) -> list[int]:
    """Return all advertisers below the most probable first tokens."""
    _, ranked = engine.prefill(prompt, trie.first_tokens.token_ids)
    nodes = np.argsort(-ranked.read_all(), kind="stable")[:count] + 1
    lineage = trie.ancestors(trie.leaf_nodes)
    firsts = np.array([row[row > 0][0] for row in lineage])
    rows: list[int] = np.unique(trie.leaf_advertiser[trie.leaf_nodes[np.isin(firsts, nodes)]])
    return [*map(int, rows)]


def _forecast(
    engine: Any,
    tries: Sequence[Trie],
    prompt: list[int],
    settings: SearchSettings,
    *,
    excluded: Sequence[int] = (),
    width: int | None = None,
) -> tuple[Any, ...]:
    """Return the best advertisers, scores of candidates, and the best interests."""
    ahead = settings.width if width is None else width
    search = TrieSearch(
        engine,
        tries[0],
        read_prompt(engine, tries[0], prompt, ahead),
        settings,
        excluded_rows=excluded,
    )
    found, scores = search.run(4), search.score(np.arange(0, 60, 7))
    interests = search.continue_prompt([5, 6], tries[1], EXACT).run(3)
    return _best(tries[0], found, 4), scores, _best(tries[1], interests, 3)


def _best(trie: Trie, found: SearchResult, count: int) -> tuple[bool, list[int], _Float64Array]:
    """Return whether they are proved, the most probable advertisers, and their totals."""
    totals = np.full(len(trie.leaf_offsets) - 1, -np.inf)
    np.logaddexp.at(totals, trie.leaf_advertiser[found.leaves], found.log_probs)
    rows = np.argsort(-totals, kind="stable")[:count]
    return found.exact, rows.tolist(), totals[rows]


def _assert_equal(mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for one, other in zip(mine[::2], theirs[::2], strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_allclose(one[2], other[2], atol=1e-4)
    assert mine[1].exact.all()
    assert theirs[1].exact.all()
    np.testing.assert_allclose(mine[1].log_probs, theirs[1].log_probs, atol=1e-4)


def test_it_is_certified_and_equals_brute_force(each: Written) -> None:
    prompt, trie = _random_ids(3, 12), _trie(4, tokens=9, names=40)
    leaves = trie.leaf_nodes
    after = cache(lambda path: each.expected([*prompt, *path]))
    paths = [tuple(path[path >= 0].tolist()) for path in trie.paths(leaves)[0]]
    true = [sum(after(path[:at])[token] for at, token in enumerate(path)) for path in paths]
    totals = np.full(len(trie.leaf_offsets) - 1, -np.inf)
    np.logaddexp.at(totals, trie.leaf_advertiser[leaves], true)
    best = np.argsort(-totals)[:5]
    engine, passes = each.ahead()
    search = TrieSearch(engine, trie, read_prompt(engine, trie, prompt, 4), EXACT)
    found = search.run(5)
    assert found.exact
    mine = np.full(len(totals), -np.inf)
    np.logaddexp.at(mine, trie.leaf_advertiser[found.leaves], found.log_probs)
    assert np.argsort(-mine)[:5].tolist() == best.tolist()
    np.testing.assert_allclose(mine[best], totals[best], atol=1e-3)
    np.testing.assert_allclose(search.score(np.arange(len(totals))).log_probs, totals, atol=1e-3)
    assert passes.prompts == [(12, 4)]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_users_that_share_passes_answer_as_alone_without(
    each: Written, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    """Users of other lengths, widths, modes, exclusions and tries, admitted one after another."""
    monkeypatch.setattr(prompt_pass, "MOST_RANKED", 6)
    recorder = StandInRecorder()
    engine, passes = each.ahead(recorder if is_recorded else None)
    tries, lengths = (_trie(5), _trie(6), _trie(7)), [12, 3, 30, 1, 12, 63, 13, 9, 11, 10, 14, 12]
    prompts = [_random_ids(seed, length) for seed, length in enumerate(lengths)]
    settings = [
        EXACT,
        SearchSettings(mode=SearchMode.BEAM, width=3),
        SearchSettings(width=30, token_budget=200),  # wider than there are first tokens
        SearchSettings(width=1, token_budget=10_000),
    ]

    def forecast(on: Any, user: int) -> tuple[Any, ...]:
        excluded = []
        if user % 3 == 1:
            excluded = _best_first_advertisers(each.plain, tries[0], prompts[user], 1)
        first = tries[user % 5 == 4]
        return _forecast(
            on, (first, tries[2]), prompts[user], settings[user % 4], excluded=excluded
        )

    answers: dict[int, tuple[Any, ...]] = {}

    def answer(user: int) -> None:
        answers[user] = forecast(engine, user)

    for _ in range(3 if is_recorded else 1):
        PassLoop().run([partial(answer, user) for user in range(len(prompts))], most=5)
    assert {*answers} == {*range(len(prompts))}
    for user, together in answers.items():
        _assert_equal(together, forecast(each.plain, user))
    assert len(passes.prompts) == len(prompts) * (3 if is_recorded else 1)
    if is_recorded:
        assert sum(graph.replays for graph in recorder.graphs) > len(recorder.graphs) > 0


def _on(device: torch.device, values: Any) -> Any:
    """Return weights on another device."""
    if isinstance(values, torch.Tensor):
        return values.to(device)
    if isinstance(values, list):
        return [_on(device, each) for each in values]
    if is_dataclass(values):
        parts = {part.name: _on(device, getattr(values, part.name)) for part in fields(values)}
        return replace(values, **parts)  # type: ignore[type-var]
    return values


def test_a_pass_runs_where_no_number_can_be_read(each: Written) -> None:
    """A CUDA graph records no pass that waits for a number, or that uses a tensor elsewhere.

    Tensors of the device meta have sizes only.
    """
    meta, first = torch.device("meta"), _trie(5).first_tokens
    of = Architecture.load(each.directory / ARCHITECTURE_FILE)
    weights = DecoderWeights.load(each.directory / TORCH_WEIGHTS_FILE, of, torch.device("cpu"))
    passes = TorchPasses(of, _on(meta, weights), meta)
    passes._block = CacheBlock(of, meta, slots=4, room=64)
    sizes = PassSizes(users=4, new=8, longest=48, seen=1, wanted=4, pairs=0)
    step = DeviceStep(DeviceTokens.of(first, meta), StepSizes.of(first, 3))
    plain = sizes._replace(seen=3, wanted=9, pairs=30), None
    for plan in ((sizes, step), plain):
        flat = torch.empty(plan[0].numbers, dtype=torch.int32, device=meta)
        found, *kept = passes._compute(plan, flat)
        if plan[1]:
            assert found.shape == (4, step.sizes.numbers)
            assert [values.shape for values in kept] == [(4, len(first.token_ids))]
        else:
            assert (found.shape, kept) == ((30,), [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_users_on_a_gpu_answer_as_without_on_the_cpu(each: Written) -> None:
    """The third time, passes are replayed."""
    engine = TorchEngine(each.directory, device="cuda")
    prompts, tries = [_random_ids(seed, 9 + seed) for seed in range(8)], (_trie(5), _trie(6))
    answers: dict[int, tuple[Any, ...]] = {}

    def answer(user: int) -> None:
        answers[user] = _forecast(engine, tries, prompts[user], EXACT)

    for _ in range(3):
        PassLoop().run([partial(answer, user) for user in range(8)], most=8)
    for user in range(8):
        _assert_equal(answers[user], _forecast(each.plain, tries, prompts[user], EXACT))


def test_the_first_step_needs_no_pass_of_its_own(llama: Written) -> None:
    prompt, trie = _random_ids(1, 12), _trie(5)
    engine, passes = llama.ahead()
    ahead = TrieSearch(engine, trie, read_prompt(engine, trie, prompt, 4), BEAM).run(4)
    with_step = passes.sizes[:]
    passes.sizes.clear()
    plain = TrieSearch(engine, trie, read_prompt(engine, trie, prompt), BEAM).run(4)
    assert passes.prompts == [(12, 4), (12, 0)]
    assert passes.sizes[0] >= 4
    assert sum(with_step) == sum(passes.sizes) - 4
    assert len(with_step) == len(passes.sizes) - (passes.sizes[0] == 4)
    assert ahead.leaves.tolist() == plain.leaves.tolist()
    np.testing.assert_allclose(ahead.log_probs, plain.log_probs, atol=1e-5)


def test_an_exact_search_takes_the_step_first(llama: Written) -> None:
    prompt, trie = _random_ids(1, 12), _trie(5)
    engine, passes = llama.ahead()
    search = TrieSearch(engine, trie, read_prompt(engine, trie, prompt, 4), EXACT)
    one = search.run(1)
    assert (one.exact, passes.prompts) == (True, [(12, 4)])
    assert one.extended_tokens == 4 + sum(passes.sizes)
    before = [*passes.sizes]
    assert search.run(1).extended_tokens == one.extended_tokens  # not again
    assert passes.sizes == before


@pytest.mark.parametrize(("width", "is_answered"), [(2, True), (4, True), (5, False)])
def test_a_beam_of_another_width_is_answered_if_it_is_narrower(
    llama: Written, width: int, is_answered: bool
) -> None:
    prompt, tries = _random_ids(1, 12), (_trie(5), _trie(6))
    settings = SearchSettings(mode=SearchMode.BEAM, width=width)
    engine, passes = llama.ahead()
    mine = _forecast(engine, tries, prompt, settings, width=4)
    with_step = sum(passes.sizes)
    passes.sizes.clear()
    theirs = _forecast(engine, tries, prompt, settings, width=0)
    _assert_equal(mine, theirs)
    assert passes.prompts == [(12, 4), (12, 0)]
    assert sum(passes.sizes) - with_step == (width if is_answered else 0)


def test_excluded_first_tokens_cost_an_ordinary_pass(llama: Written) -> None:
    prompt, tries = _random_ids(1, 12), (_trie(5), _trie(6))
    excluded = _best_first_advertisers(llama.plain, tries[0], prompt, 2)
    engine, passes = llama.ahead()
    mine = _forecast(engine, tries, prompt, EXACT, excluded=excluded)
    with_step = passes.sizes[:]
    passes.sizes.clear()
    theirs = _forecast(engine, tries, prompt, EXACT, excluded=excluded, width=0)
    _assert_equal(mine, theirs)
    assert with_step == passes.sizes


def test_other_tokens_that_the_same_may_follow_cost_an_ordinary_pass(llama: Written) -> None:
    """Names of one token each: only the terminator may follow any of them."""
    prompt, trie = (
        _random_ids(1, 12),
        Trie.build([(token, END) for token in range(1, 20)], range(19)),
    )
    best = _best_first_advertisers(llama.plain, trie, prompt, 1)
    engine, passes = llama.ahead()
    for excluded, sizes in (([], []), (best, [4])):
        passes.sizes.clear()
        found = [
            TrieSearch(
                on, trie, read_prompt(on, trie, prompt, 4), BEAM, excluded_rows=excluded
            ).run(4)
            for on in (engine, llama.plain)
        ]
        assert passes.sizes == sizes
        assert found[0].leaves.tolist() == found[1].leaves.tolist()
        np.testing.assert_allclose(found[0].log_probs, found[1].log_probs, atol=1e-4)


def test_of_equal_tokens_the_first_are_extended(llama: Written, tmp_path: Path) -> None:
    weights = {name: values.copy() for name, values in weights_of(llama.model).items()}
    weights["lm_head.weight"][:] = 0
    write_torch_model(llama.model.config.to_dict(), weights, tmp_path)
    tied = Written(model=llama.model, directory=tmp_path, plain=TorchEngine(tmp_path, threads=1))
    engine, passes = tied.ahead()
    prompt, tries = _random_ids(1, 12), (_trie(5), _trie(6))
    _assert_equal(
        _forecast(engine, tries, prompt, BEAM), _forecast(tied.plain, tries, prompt, BEAM)
    )
    state, _ = engine.prefill(prompt, [], FirstStep(tries[0].first_tokens, 4))
    assert isinstance(state, AheadTree)
    assert state.answer is not None
    assert state.answer.extended.tolist() == [0, 1, 2, 3]
    assert passes.prompts[0] == (12, 4)


def test_another_pass_first_makes_the_step_worthless(llama: Written) -> None:
    """It writes to the same places, kept or not."""
    prompt, tries = _random_ids(1, 12), (_trie(5), _trie(6))
    engine, passes = llama.ahead()
    for width in (4, 0):
        search = TrieSearch(engine, tries[0], read_prompt(engine, tries[0], prompt, width), EXACT)
        scores = search.score(np.arange(0, 60, 7))
        found = search.run(4)
        theirs = TrieSearch(
            llama.plain, tries[0], read_prompt(llama.plain, tries[0], prompt), EXACT
        )
        np.testing.assert_allclose(
            scores.log_probs, theirs.score(np.arange(0, 60, 7)).log_probs, atol=1e-4
        )
        np.testing.assert_allclose(found.log_probs, theirs.run(4).log_probs, atol=1e-4)
    half = len(passes.sizes) // 2
    assert passes.sizes[:half] == passes.sizes[half:]


def test_a_step_that_could_return_too_much_is_left_to_the_search(
    llama: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, tries = _random_ids(1, 12), (_trie(5), _trie(6))
    monkeypatch.setattr(working_ahead, "MOST_NEXT", tries[0].first_tokens.most_next(4))
    engine, passes = llama.ahead()
    _forecast(engine, tries, prompt, EXACT)
    monkeypatch.setattr(working_ahead, "MOST_NEXT", tries[0].first_tokens.most_next(4) - 1)
    mine = _forecast(engine, tries, prompt, EXACT)
    assert passes.prompts == [(12, 4), (12, 0)]
    _assert_equal(mine, _forecast(llama.plain, tries, prompt, EXACT))


def test_a_step_wider_than_a_pass_is_left_to_the_search(llama: Written) -> None:
    engine, passes = llama.ahead()
    trie = _trie(5)
    for width in (512, 513):
        engine.prefill([3], [], FirstStep(trie.first_tokens, width))
    assert passes.prompts == [(1, 512), (1, 0)]


def test_all_first_tokens_stay_on_the_device(
    llama: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when later passes, recorded or not, have used the same memory."""
    monkeypatch.setattr(prompt_pass, "MOST_RANKED", 5)
    first = _trie(5).first_tokens
    for recorder in (None, StandInRecorder()):
        engine, _ = llama.ahead(recorder)
        prompts = [_random_ids(seed, 12) for seed in range(8)]
        found = [engine.prefill(prompt, [], FirstStep(first, 2))[1] for prompt in prompts]
        for prompt, ranked in zip(prompts, found, strict=True):
            expected = llama.expected(prompt)[first.token_ids]
            np.testing.assert_allclose(ranked.read_all(), expected, atol=1e-4)
            best = np.argsort(-expected)[:5]
            assert ranked.places.tolist() == sorted(best.tolist())
            assert ranked.asked == len(expected)
            np.testing.assert_array_equal(ranked.log_probs, ranked.read_all()[ranked.places])
            others = np.delete(ranked.read_all().astype(np.float64), ranked.places)
            mass = np.log(np.exp(others).sum())
            np.testing.assert_allclose(ranked.others_log_mass, mass, rtol=1e-14)
        assert recorder is None or recorder.graphs[0].replays > 1


def test_few_first_tokens_are_all_there_without_waiting_again(llama: Written) -> None:
    first = _trie(5).first_tokens
    engine, _ = llama.ahead()
    _, ranked = engine.prefill([3, 4], [], FirstStep(first, 2))
    assert ranked.places.tolist() == [*range(len(first.token_ids))]
    assert ranked.read_all() is ranked.log_probs
    assert ranked.others_log_mass == -np.inf


def test_steps_of_about_the_same_width_have_one_recording(llama: Written) -> None:
    first, recorder = _trie(5).first_tokens, StandInRecorder()
    engine, _ = llama.ahead(recorder)
    for width in (3, 4, 3, 4, 3):
        state, _ = engine.prefill(_random_ids(width, 12), [], FirstStep(first, width))
        assert isinstance(state, AheadTree)
        assert state.answer is not None
        assert len(state.answer.extended) == 4
    assert [graph.replays for graph in recorder.graphs] == [3]


def test_a_model_that_returns_nan_is_found_out(
    llama: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_pass, "MOST_RANKED", 5)
    log_probs = TorchDecoder.log_probs

    def spoilt(*arguments: Any) -> torch.Tensor:
        found = log_probs(*arguments)
        found[3] = torch.nan
        return found

    monkeypatch.setattr(TorchDecoder, "log_probs", spoilt)
    _, ranked = llama.ahead()[0].prefill([3], [], FirstStep(_trie(5).first_tokens, 2))
    assert np.isnan(ranked.log_probs).sum() == 1
    assert 3 in ranked.places


class EagerPasses(TorchPasses):
    """Stands in for a GPU: it computes when a pass is started."""

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        with _device_faults(self._device):
            return self._start(parts)


def test_a_device_without_memory_for_all_reads_fewer_prompts(
    llama: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the memory ends after the prompts are read."""
    prompts, tries = [_random_ids(seed, 12) for seed in range(6)], (_trie(5), _trie(6))
    run, users = TorchDecoder.run, list[int]()

    def run_or_fail(decoder: TorchDecoder, cache: Any, given: Any) -> torch.Tensor:
        users.append(len(given.token_ids))
        if users[-1] > 2 and given.token_ids.shape[1] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return run(decoder, cache, given)

    monkeypatch.setattr(TorchDecoder, "run", run_or_fail)
    engine = WorkingAheadEngine(
        SharedPasses(llama.passes(of=EagerPasses)),
        vocabulary=VOCABULARY,
        max_positions=MAX_POSITIONS,
    )
    answers: dict[int, tuple[Any, ...]] = {}

    def answer(user: int) -> None:
        answers[user] = _forecast(engine, tries, prompts[user], EXACT)

    PassLoop().run([partial(answer, user) for user in range(6)], most=6)
    assert users[:4] == [6, 6, 3, 3]
    assert max(users[4:]) <= 2
    for user in range(6):
        _assert_equal(answers[user], _forecast(llama.plain, tries, prompts[user], EXACT))


def test_a_token_beyond_the_vocabulary_is_refused(llama: Written) -> None:
    trie = Trie.build([(3, 4, END), (VOCABULARY, END), (5, VOCABULARY + 7, END)], [0, 1, 2])
    engine, _ = llama.ahead()
    with pytest.raises(ValueError, match=r"next_tokens: found 0 to 57, the model knows 0 to 49"):
        engine.prefill([3], trie.first_tokens.token_ids, FirstStep(trie.first_tokens, 2))


def test_a_pass_that_asks_for_part_of_the_step_is_an_ordinary_one(llama: Written) -> None:
    trie, prompt = _trie(5), _random_ids(1, 12)
    first = trie.first_tokens
    engine, passes = llama.ahead()

    def begun() -> tuple[Any, int, list[int], LogProbs]:
        """Return a state, its first token, what may follow it, and the true log-probabilities."""
        state, _ = engine.prefill(prompt, [], FirstStep(first, 2))
        assert isinstance(state, AheadTree)
        assert state.answer is not None
        place = int(state.answer.extended[0])
        token = int(first.token_ids[place])
        after = first.next_ids[first.offsets[place] : first.offsets[place + 1]].tolist()
        assert len(after) > 1
        return state, token, after, llama.expected([*prompt, token])[after]

    state, token, after, expected = begun()
    found = engine.extend(state, [token], [ROOT], [0] * len(after), after)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert passes.sizes == []
    for fewer in (after[:-1], after[1:], after[::-1], [*after, after[0]], []):
        state, token, _, _ = begun()
        passes.sizes.clear()
        found = engine.extend(state, [token], [ROOT], [0] * len(fewer), fewer)
        np.testing.assert_allclose(found, llama.expected([*prompt, token])[fewer], atol=1e-4)
        assert passes.sizes == [1]
    state, token, after, expected = begun()
    passes.sizes.clear()
    found = engine.extend(state, [token], [ROOT], [0] * len(after), after, keep=False)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (passes.sizes, state.cache.length, len(state.parents)) == ([1], 12, 0)
    state, token, after, expected = begun()
    passes.sizes.clear()
    deeper = engine.extend(
        state, [token, after[0]], [ROOT, 0], [*[0] * len(after), 1, 1], [*after, 7, 8]
    )
    assert passes.sizes == [1]
    below = llama.expected([*prompt, token, after[0]])[[7, 8]]
    np.testing.assert_allclose(deeper, [*expected, *below], atol=1e-4)
    assert state.cache.length == 14
