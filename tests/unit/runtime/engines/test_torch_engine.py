from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adprior_build.torch_model.write_model import write_torch_model
from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.base import ROOT, Engine, LogProbs
from adprior_runtime.engines.packed_tree import PackedTreeEngine
from adprior_runtime.engines.pass_loop import MOST_SEARCHES, PassLoop, SharedPasses
from adprior_runtime.engines.registry import TORCH
from adprior_runtime.engines.torch_decoder import TorchDecoder
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.engines.torch_passes import TorchPasses
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.errors import (
    AdpriorError,
    ArtefactError,
    DeviceFullError,
    DeviceLostError,
    EnvironmentProblemError,
    InvalidRequestError,
)
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt
from support.small_models import (
    FAMILIES,
    MAX_POSITIONS,
    VOCABULARY,
    Exported,
    small_gemma3,
    small_llama,
    weights_of,
)
from support.stand_in_graphs import StandInRecorder
from support.whole_vocabulary import extend_all, prefill_all

pytest_plugins = ("support.small_models",)

END = 0
SEARCH = SearchSettings(width=4, token_budget=10_000)
Make = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Both:
    """One model, run by ONNX Runtime and by torch; ``directory`` has the latter's files."""

    onnx: Exported
    directory: Path
    engine: TorchEngine


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: such small models would wait for a second one longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def write(
    export: Callable[[Make], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Make], Both]:
    """Return a function that writes each model once."""

    @cache
    def write_once(make: Make) -> Both:
        onnx, directory = export(make), tmp_path_factory.mktemp("torch")
        write_torch_model(onnx.model.config.to_dict(), weights_of(onnx.model), directory)
        return Both(onnx=onnx, directory=directory, engine=TorchEngine(directory, threads=1))

    return write_once


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, write: Callable[[Make], Both]) -> Both:
    return write(request.param)


@pytest.fixture(scope="module")
def llama(write: Callable[[Make], Both]) -> Both:
    return write(small_llama)


@pytest.fixture
def damaged(llama: Both, tmp_path: Path) -> Path:
    """A copy of a model's files, which a test spoils."""
    for name in (ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE):
        (tmp_path / name).write_bytes((llama.directory / name).read_bytes())
    return tmp_path


def _random_ids(seed: int, size: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, size=size).tolist()
    return ids


def _grown(engine: Engine[Any], prompt: list[int], seed: int) -> list[LogProbs]:
    """Read a prompt and grow a random tree, with one pass that is not kept."""
    random = np.random.default_rng(seed)
    state, first = prefill_all(engine, prompt, VOCABULARY)
    found, nodes = [first], 0
    for size, keep in ((3, True), (4, False), (6, True), (5, True)):
        tokens = random.integers(0, VOCABULARY, size=size).tolist()
        parents = random.integers(ROOT, max(nodes, 1), size=size).tolist() if nodes else [ROOT] * 3
        found += [*extend_all(engine, state, tokens, parents, VOCABULARY, keep=keep)]
        nodes += size if keep else 0
    return found


@pytest.mark.parametrize(
    "length", [1, 30, 56]
)  # longer than the windows; than a cache's first room
def test_it_answers_as_the_model_itself_and_as_onnx(both: Both, length: int) -> None:
    prompt = _random_ids(length, length)
    mine, theirs = (_grown(each, prompt, length) for each in (both.engine, both.onnx.engine))
    assert mine[0].dtype == np.float32
    np.testing.assert_allclose(mine[0], both.onnx.expected(prompt), atol=1e-4)
    np.testing.assert_allclose(np.stack(mine), np.stack(theirs), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_gpu_answers_as_the_cpu(both: Both) -> None:
    head = _random_ids(30, 5)
    engine = TorchEngine(both.directory, device="cuda", head_ids=head)
    prompt = head + _random_ids(31, 25)
    mine, theirs = (_grown(each, prompt, 1) for each in (engine, both.engine))
    np.testing.assert_allclose(np.stack(mine), np.stack(theirs), atol=1e-4)


def test_its_search_is_certified_and_equals_brute_force(both: Both) -> None:
    prompt, random = _random_ids(3, 12), np.random.default_rng(4)
    names = sorted({(*random.integers(1, 9, random.integers(1, 4)).tolist(),) for _ in range(40)})
    paths = [(*name, END) for name in names]
    trie = Trie.build(paths, range(len(paths)))
    after = cache(lambda path: both.onnx.expected([*prompt, *path]))
    true = np.array(
        [sum(after(path[:at])[token] for at, token in enumerate(path)) for path in paths]
    )
    best = np.argsort(-true)[:5]
    for engine in (both.engine, both.onnx.engine):
        search = TrieSearch(engine, trie, read_prompt(engine, trie, prompt), SEARCH)
        found = search.run(5)
        rows = trie.leaf_advertiser[found.leaves[:5]]
        assert found.exact
        assert rows.tolist() == best.tolist()
        np.testing.assert_allclose(found.log_probs[:5], true[best], atol=1e-3)
        np.testing.assert_allclose(search.score(np.arange(len(paths))).log_probs, true, atol=1e-3)


def _trie(seed: int) -> Trie:
    random = np.random.default_rng(seed)
    names = sorted({(*random.integers(1, 20, random.integers(1, 5)).tolist(),) for _ in range(150)})
    return Trie.build([(*name, END) for name in names], np.arange(len(names)) // 2)  # with aliases


def test_searches_that_share_passes_answer_as_alone(both: Both) -> None:
    """Users of different lengths, modes, exclusions and candidates, admitted one after another."""
    engine, trie, tail = both.engine, _trie(5), _trie(6)
    prompts = [_random_ids(seed, length) for seed, length in enumerate([12, 3, 30, 1, 12, 57, 13])]
    settings = [SearchSettings(width=4, token_budget=budget) for budget in (10_000, 40)]

    def forecast(user: int) -> tuple[Any, ...]:
        prefilled = read_prompt(engine, trie, prompts[user])
        excluded = [user, 30] if user % 2 else []
        search = TrieSearch(
            engine, trie, prefilled, settings[user % 3 == 2], excluded_rows=excluded
        )
        found, scores = search.run(4), search.score(np.arange(0, 60, 7))
        interests = search.continue_prompt([5, 6], tail, settings[0]).run(3)
        return found, scores, interests

    answers: dict[int, tuple[Any, ...]] = {}

    def answer(user: int) -> None:
        answers[user] = forecast(user)

    PassLoop().run([partial(answer, user) for user in range(len(prompts))], most=4)
    assert {*answers} == {*range(len(prompts))}
    for user, together in answers.items():
        alone = forecast(user)
        for mine, theirs in zip(together[::2], alone[::2], strict=True):
            assert (mine.exact, len(mine.leaves)) == (theirs.exact, len(theirs.leaves))
            by_leaf = np.argsort(mine.leaves), np.argsort(theirs.leaves)
            assert mine.leaves[by_leaf[0]].tolist() == theirs.leaves[by_leaf[1]].tolist()
            scores = mine.log_probs[by_leaf[0]], theirs.log_probs[by_leaf[1]]
            np.testing.assert_allclose(*scores, atol=1e-4)
        assert together[1].exact.tolist() == alone[1].exact.tolist()
        np.testing.assert_allclose(together[1].log_probs, alone[1].log_probs, atol=1e-4)
    state, _ = engine.prefill([1], [])
    assert state.cache._block.slots <= 8  # four users, an empty head, and this one


def test_padded_and_replayed_passes_answer_as_others(both: Both) -> None:
    record = StandInRecorder()
    of = Architecture.load(both.directory / ARCHITECTURE_FILE)
    cpu = torch.device("cpu")
    weights = DecoderWeights.load(both.directory / TORCH_WEIGHTS_FILE, of, cpu)
    record.passes = passes = TorchPasses(of, weights, cpu, lambda: record)
    engine = PackedTreeEngine(
        SharedPasses(passes), vocabulary=VOCABULARY, max_positions=MAX_POSITIONS
    )
    slots, room = passes._block.slots, passes._block.room
    assert slots == MOST_SEARCHES + 2
    prompts = [_random_ids(seed, 7 + seed % 2) for seed in range(24)]
    found: dict[int, list[LogProbs]] = {}

    def search(user: int) -> None:
        found[user] = _grown(engine, prompts[user], user)

    PassLoop().run([partial(search, user) for user in range(12)], most=3)
    passes._block.make_room(room + 1)  # moves the cache, with users in it or not
    PassLoop().run([partial(search, user) for user in range(12, len(prompts))], most=3)
    assert passes._block.slots == slots
    assert sum(graph.replays for graph in record.graphs) > len(record.graphs) > 0
    for user, mine in found.items():
        theirs = _grown(both.engine, prompts[user], user)
        np.testing.assert_allclose(np.stack(mine), np.stack(theirs), atol=1e-4)


@pytest.mark.parametrize("make", [small_llama, small_gemma3])
def test_one_pass_or_several_give_the_same(write: Callable[[Make], Both], make: Make) -> None:
    engine, prompt = write(make).engine, _random_ids(2, 9)
    tokens, parents = [4, 5, 6, 7, 8], [ROOT, 0, 0, 2, 3]
    state, _ = engine.prefill(prompt, [])
    at_once = extend_all(engine, state, tokens, parents, VOCABULARY)
    state, _ = engine.prefill(prompt, [])
    for token, parent, row in zip(tokens, parents, at_once, strict=True):
        np.testing.assert_allclose(
            extend_all(engine, state, [token], [parent], VOCABULARY)[0], row, atol=5e-5
        )


def test_a_pass_that_is_not_kept_leaves_no_trace(llama: Both) -> None:
    """Not even if the cache grew for it."""
    prompt, wide = _random_ids(3, 40), list(range(40))
    states = [llama.engine.prefill(prompt, [])[0] for _ in range(2)]
    extend_all(llama.engine, states[0], wide, [ROOT] * 40, VOCABULARY, keep=False)
    mine, plain = (extend_all(llama.engine, s, [7, 8], [ROOT, 0], VOCABULARY) for s in states)
    np.testing.assert_allclose(mine, plain, atol=1e-6)
    assert states[0].cache.length == states[1].cache.length == 42


def test_users_and_the_common_head_do_not_share_what_they_add(llama: Both) -> None:
    head = _random_ids(6, 5)
    engine = TorchEngine(llama.directory, threads=1, head_ids=head)
    prompts = [head + _random_ids(seed, 4) for seed in (7, 8)] + [_random_ids(9, 12), head]
    states = []
    for prompt in prompts:
        state, found = prefill_all(engine, prompt, VOCABULARY)
        np.testing.assert_allclose(found, llama.onnx.expected(prompt), atol=1e-4)
        states.append(state)
    for state in states:
        engine.extend(state, [3, 4], [ROOT, ROOT], [], [])
    for prompt, state in zip(prompts, states, strict=True):
        row = extend_all(engine, state, [5], [1], VOCABULARY)[0]
        np.testing.assert_allclose(row, llama.onnx.expected([*prompt, 4, 5]), atol=1e-4)


def test_the_cache_grows_by_powers_of_two(llama: Both) -> None:
    engine = TorchEngine(llama.directory, threads=1)
    state, _ = engine.prefill(_random_ids(1, 10), [])
    block = state.cache._block
    rooms = [block.room]
    for _ in range(4):
        engine.extend(state, [4] * 50, [ROOT] * 50, [], [])
        rooms.append(block.room)
    assert (state.cache.length, rooms) == (210, [64, 64, 128, 256, 256])


def test_only_wanted_tokens_are_returned(llama: Both) -> None:
    """Rows may ask for several tokens, for one, or for none, and a token twice."""
    prompt = _random_ids(1, 12)
    state, first = llama.engine.prefill(prompt, [7, 7, 0])
    np.testing.assert_allclose(first.read_all(), llama.onnx.expected(prompt)[[7, 7, 0]], atol=1e-4)
    found = llama.engine.extend(state, [4, 5, 6], [ROOT, 0, 1], [0, 2, 2], [49, 8, 3])
    after = [llama.onnx.expected([*prompt, *path]) for path in ([4], [4, 5, 6])]
    np.testing.assert_allclose(found, [after[0][49], *after[1][[8, 3]]], atol=1e-4)
    assert llama.engine.extend(state, [4], [ROOT], [], []).shape == (0,)


@pytest.mark.parametrize("length", [0, MAX_POSITIONS])
def test_an_empty_prompt_and_one_too_long_are_refused(llama: Both, length: int) -> None:
    message = f"input_ids: {length} tokens, the model takes 1 to {MAX_POSITIONS - 1}"
    with pytest.raises(InvalidRequestError, match=message):
        llama.engine.prefill(_random_ids(1, length), [])


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_a_token_beyond_the_vocabulary_is_refused(llama: Both, token: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"input_ids: found .*{token}.* knows 0 to 49"):
        llama.engine.prefill([3, token], [])
    state, _ = llama.engine.prefill([3], [])
    for engine in (llama.engine, llama.onnx.engine):
        with pytest.raises(ValueError, match=rf"next_tokens: found {token} to {token}, .* 0 to 49"):
            engine.extend(state, [4], [ROOT], [0], [token])


def _refusal(directory: Path, expected: type[AdpriorError]) -> str:
    with pytest.raises(expected) as caught:
        TorchEngine(directory, threads=1)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", [ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe no model", "truncated"])
def test_a_file_that_is_something_else_is_refused(
    damaged: Path, name: str, content: bytes | str | None
) -> None:
    path = damaged / name
    cut = path.read_bytes()[:-100]
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else cut)
    assert _refusal(damaged, ArtefactError).startswith(f"{path}: ")


NORM, MATRIX = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop(NORM), f"has no weight {NORM}"),
        (
            lambda weights: weights.pop("model.layers.0.self_attn.q_proj.bias"),
            "has no weight model.layers.0.self_attn.q_proj.bias",
        ),
        (
            lambda weights: weights.update(extra=torch.zeros(2)),
            "has 1 weights that the architecture does not explain, among them extra",
        ),
        (
            lambda weights: weights.update({MATRIX: torch.zeros(3, 32)}),
            f"{MATRIX} is torch.float32 [3, 32], expected one of torch.float32, torch.bfloat16 and "
            "[64, 32]",
        ),
        (
            lambda weights: weights.update({NORM: weights[NORM].half()}),
            f"{NORM} is torch.float16 [32], expected",
        ),
    ],
)
def test_weights_that_do_not_fit_the_architecture_are_refused(
    damaged: Path, spoil: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    path = damaged / TORCH_WEIGHTS_FILE
    weights = {name: values.clone() for name, values in load_file(path).items()}
    spoil(weights)
    path.unlink()
    save_file(weights, path)
    assert message in _refusal(damaged, ArtefactError)


@pytest.mark.parametrize("device", ["cuda", "abacus"])
def test_an_unavailable_device_is_refused(llama: Both, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("CUDA is here")
    with pytest.raises(EnvironmentProblemError, match=f"^device {device}: ") as caught:
        TorchEngine(llama.directory, device=device)
    assert len(str(caught.value).splitlines()) == 1


def test_a_gpu_that_is_found_and_cannot_compute_is_refused(
    llama: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EnvironmentProblemError, match=r"^device cuda: .*--device cpu$") as caught:
        TorchEngine(llama.directory, device="cuda")
    assert len(str(caught.value).splitlines()) == 1


def test_without_torch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [name for name in sys.modules if name.startswith("adprior_runtime.engines.torch_")]
    for name in own:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert TORCH.loader is not None
    message = r"^engine torch needs the package torch: pip install 'adprior\[torch\]'$"
    with pytest.raises(EnvironmentProblemError, match=message):
        TORCH.loader(None, threads=1, device="cpu")  # type: ignore[arg-type]


def test_a_torch_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ModuleType("adprior_runtime.engines.torch_engine")  # lacks the engine
    monkeypatch.setitem(sys.modules, broken.__name__, broken)
    assert TORCH.loader is not None
    with pytest.raises(
        EnvironmentProblemError, match=r"^engine torch cannot import its packages: "
    ):
        TORCH.loader(None, threads=1, device="cpu")  # type: ignore[arg-type]


def test_too_little_memory_is_one_line(llama: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        torch.empty(10**15)

    monkeypatch.setattr(DecoderWeights, "load", load)
    with pytest.raises(EnvironmentProblemError, match=r"^device cpu: .*memory") as caught:
        TorchEngine(llama.directory, threads=1)
    assert len(str(caught.value).splitlines()) == 1


def test_a_lost_device_is_one_line(llama: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access\nand more")

    monkeypatch.setattr(TorchDecoder, "run", run)
    message = "^device cpu: CUDA error: an illegal memory access$"
    with pytest.raises(DeviceLostError, match=message):
        llama.engine.prefill([3], [])


def test_a_pass_without_memory_is_one_line_and_changes_nothing(
    llama: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = llama.engine.prefill([3, 4], [5])
    with monkeypatch.context() as patched:

        def run(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand more")

        patched.setattr(TorchDecoder, "run", run)
        with pytest.raises(DeviceFullError, match=r"^device cpu: CUDA out of memory\. Tried") as no:
            llama.engine.extend(state, [5], [ROOT], [0], [6])
    assert "\n" not in str(no.value)
    found = llama.engine.extend(state, [5], [ROOT], [0], [6])
    fresh, _ = llama.engine.prefill([3, 4], [5])
    assert found == llama.engine.extend(fresh, [5], [ROOT], [0], [6])
