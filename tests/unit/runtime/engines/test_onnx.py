from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from adprior_runtime.engines.base import ROOT, LogProbs
from adprior_runtime.engines.kv_cache import KvCache
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.packed_tree import UserTree
from adprior_runtime.errors import ArtefactError, InvalidRequestError
from support.small_models import (
    FAMILIES,
    MAX_POSITIONS,
    VOCABULARY,
    Exported,
    small_llama,
)
from support.whole_vocabulary import extend_all, prefill_all

pytest_plugins = ("support.small_models",)


@dataclass
class Tree:
    """Continuations of one prompt, in the order of the engine's numbers."""

    engine: OnnxEngine
    state: UserTree
    paths: list[tuple[int, ...]] = field(default_factory=list)

    def extend(self, tokens: Sequence[int], parents: Sequence[int]) -> LogProbs:
        for token, parent in zip(tokens, parents, strict=True):
            self.paths.append((*(self.paths[parent] if parent != ROOT else ()), token))
        return extend_all(self.engine, self.state, tokens, parents, VOCABULARY)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: such small models would wait for a second one longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=FAMILIES)
def exported(
    request: pytest.FixtureRequest, export: Callable[[Callable[[], Any]], Exported]
) -> Exported:
    return export(request.param)


@pytest.fixture(scope="module")
def llama(export: Callable[[Callable[[], Any]], Exported]) -> Exported:
    return export(small_llama)


def _random_ids(seed: int, size: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, size=size).tolist()
    return ids


@pytest.mark.parametrize("length", [1, 2, 17, MAX_POSITIONS - 1])
def test_a_prompt_has_the_models_own_probabilities(exported: Exported, length: int) -> None:
    prompt = _random_ids(length, length)
    _, log_probs = prefill_all(exported.engine, prompt, VOCABULARY)
    assert log_probs.shape == (VOCABULARY,)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(log_probs, exported.expected(prompt), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_every_node_of_a_tree_has_the_models_own_probabilities(
    exported: Exported, seed: int
) -> None:
    random = np.random.default_rng(seed)
    prompt = _random_ids(seed, int(random.integers(1, 30)))
    state, _ = prefill_all(exported.engine, prompt, VOCABULARY)
    tree = Tree(exported.engine, state)
    rows: list[Any] = []
    for size in (3, 5, 4, 4):
        parents = random.integers(ROOT, len(tree.paths), size=size).tolist()
        rows += [*tree.extend(random.integers(0, VOCABULARY, size=size).tolist(), parents)]
    rows += [*tree.extend([7, 8, 9], [ROOT, len(tree.paths), len(tree.paths) + 1])]
    assert max(map(len, tree.paths)) >= 3
    for path, row in zip(tree.paths, rows, strict=True):
        np.testing.assert_allclose(row, exported.expected(prompt + list(path)), atol=1e-4)


def test_other_branches_change_nothing(llama: Exported) -> None:
    prompt = _random_ids(1, 12)
    alone = Tree(llama.engine, llama.engine.prefill(prompt, [])[0])
    first, second = alone.extend([5], [ROOT]), alone.extend([6], [0])
    crowded = Tree(llama.engine, llama.engine.prefill(prompt, [])[0])
    crowded.extend([9, 9, 5], [ROOT, ROOT, ROOT])
    crowded.extend([3, 4, 5], [0, 1, 1])
    found = crowded.extend([5, 8, 6], [ROOT, 2, 6])
    np.testing.assert_allclose(found[0], first[0], atol=1e-5)
    np.testing.assert_allclose(found[2], second[0], atol=1e-5)


def test_one_pass_or_several_give_the_same(llama: Exported) -> None:
    prompt = _random_ids(2, 9)
    tokens, parents = [4, 5, 6, 7, 8], [ROOT, 0, 0, 2, 3]
    at_once = Tree(llama.engine, llama.engine.prefill(prompt, [])[0]).extend(tokens, parents)
    tree = Tree(llama.engine, llama.engine.prefill(prompt, [])[0])
    by_one = [tree.extend([t], [p])[0] for t, p in zip(tokens, parents, strict=True)]
    np.testing.assert_allclose(at_once, by_one, atol=1e-5)


def test_a_pass_that_is_not_kept_leaves_no_trace(llama: Exported) -> None:
    prompt = _random_ids(3, 9)
    state, _ = llama.engine.prefill(prompt, [])
    extend_all(llama.engine, state, [4], [ROOT], VOCABULARY)
    tried = extend_all(llama.engine, state, [5, 6], [0, 1], VOCABULARY, keep=False)
    np.testing.assert_allclose(tried[1], llama.expected([*prompt, 4, 5, 6]), atol=1e-4)
    found = extend_all(llama.engine, state, [7, 8], [0, 1], VOCABULARY)
    np.testing.assert_allclose(found[1], llama.expected([*prompt, 4, 7, 8]), atol=1e-4)


def test_users_do_not_share_a_tree(llama: Exported) -> None:
    prompts = [_random_ids(4, 6), _random_ids(5, 11)]
    states = [llama.engine.prefill(prompt, [])[0] for prompt in prompts]
    for state in states:
        extend_all(llama.engine, state, [3, 4], [ROOT, ROOT], VOCABULARY)
    for prompt, state in zip(prompts, states, strict=True):
        row = extend_all(llama.engine, state, [5], [1], VOCABULARY)[0]
        np.testing.assert_allclose(row, llama.expected([*prompt, 4, 5]), atol=1e-4)


@pytest.mark.parametrize("length", [1, 4, 5, 6, 20])
def test_reading_the_prompts_common_head_once_changes_nothing(llama: Exported, length: int) -> None:
    head = _random_ids(6, 5)
    engine = OnnxEngine(llama.path, threads=1, head_ids=head)
    for prompt in ((head + _random_ids(7, 20))[:length], _random_ids(8, length)):
        for _ in range(2):
            state, log_probs = prefill_all(engine, prompt, VOCABULARY)
            np.testing.assert_allclose(log_probs, llama.expected(prompt), atol=1e-4)
            row = extend_all(engine, state, [3, 4], [ROOT, 0], VOCABULARY)[1]
            np.testing.assert_allclose(row, llama.expected([*prompt, 3, 4]), atol=1e-4)


@pytest.mark.parametrize("length", [0, MAX_POSITIONS, MAX_POSITIONS + 1])
def test_an_empty_prompt_and_one_too_long_are_refused(llama: Exported, length: int) -> None:
    message = f"input_ids: {length} tokens, the model takes 1 to {MAX_POSITIONS - 1}"
    with pytest.raises(InvalidRequestError, match=message):
        llama.engine.prefill(_random_ids(1, length), [])


@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**31 - 1])
def test_a_token_beyond_the_vocabulary_is_refused(llama: Exported, token: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"input_ids: found .*{token}.* knows 0 to 49"):
        llama.engine.prefill([3, token], [])


def test_an_export_names_no_file_of_this_machine(exported: Exported) -> None:
    content = exported.path.read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() + b"/" not in content
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("content", [None, b"", b"not a graph", "truncated"])
def test_a_file_that_is_not_a_graph_is_refused(
    llama: Exported, content: bytes | str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        truncated = llama.path.read_bytes()[:-1000]
        path.write_bytes(content if isinstance(content, bytes) else truncated)
    with pytest.raises(ArtefactError, match=r"model\.onnx: not a language model in ONNX"):
        OnnxEngine(path)


@pytest.mark.parametrize("name", ["x", "past_keys.0"])
def test_a_graph_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "head.onnx"
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", [name], ["y"])], "head", inputs, outputs
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    with pytest.raises(ArtefactError, match=r"head\.onnx: not a language model in ONNX") as caught:
        OnnxEngine(path)
    assert len(str(caught.value).splitlines()) == 1


def _rename(model: Any) -> None:
    model.graph.output[0].name = "probabilities"
    for node in model.graph.node:
        node.output[:] = ["probabilities" if n == "log_probs" else n for n in node.output]


def _narrow(model: Any) -> None:
    shape = model.graph.input[3].type.tensor_type.shape
    shape.dim[3].dim_value = 9


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_rename, "unexpected output probabilities"),
        (lambda m: m.graph.output.pop(), r"no output values\.1"),
        (_narrow, r"input attention_mask: found tensor\(float\) \[1, 1, .*, 9\], expected"),
        (
            lambda m: m.ClearField("metadata_props"),
            "the graph has contract 1, expected 3: .*; build the bundle again",
        ),
    ],
    ids=["another name", "one too few", "another shape", "another contract"],
)
def test_a_graph_that_breaks_the_contract_is_refused(
    llama: Exported, tmp_path: Path, spoil: Callable[[Any], Any], message: str
) -> None:
    model = onnx.load(str(llama.path))
    spoil(model)
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(ArtefactError, match=f"not a language model in ONNX: {message}"):
        OnnxEngine(tmp_path / "model.onnx")


@pytest.mark.parametrize(("threads", "started"), [(0, 2), (1, 0), (5, 4)])
def test_an_engine_starts_no_more_threads_than_it_may_use(
    llama: Exported, monkeypatch: pytest.MonkeyPatch, threads: int, started: int
) -> None:
    """The caller's own thread works too."""
    monkeypatch.setattr("adprior_runtime.cpu_count.available_processors", lambda: 3)
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    engine = OnnxEngine(llama.path, threads=threads)
    assert len(set(tasks.iterdir()) - before) == started
    assert engine.prefill([3], [5, 6])[1].read_all().shape == (2,)


@pytest.mark.parametrize(
    ("positions", "most"), [(1000, 256), (3584, 256), (16_000, 127), (2**22, 1)]
)
def test_a_pass_is_bounded_in_bytes(llama: Exported, positions: int, most: int) -> None:
    state = UserTree(KvCache([]), np.zeros(positions, dtype=np.int64))
    assert llama.engine.most_tokens(state) == most
    assert most == 1 or most * (positions + most) * 4 <= 8 * 2**20


def test_only_wanted_tokens_leave_the_graph(llama: Exported) -> None:
    """Rows may ask for several tokens, for one, or for none, and a token twice."""
    prompt = _random_ids(1, 12)
    state, first = llama.engine.prefill(prompt, [7, 7, 0])
    np.testing.assert_allclose(first.read_all(), llama.expected(prompt)[[7, 7, 0]], atol=1e-4)
    found = llama.engine.extend(state, [4, 5, 6], [ROOT, 0, 1], [0, 2, 2], [49, 8, 3])
    expected = [
        llama.expected([*prompt, 4])[49],
        *llama.expected([*prompt, 4, 5, 6])[[8, 3]],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert llama.engine.extend(state, [4], [ROOT], [], []).shape == (0,)


def test_a_large_tree_needs_no_matrix_of_all_its_nodes(llama: Exported) -> None:
    """A matrix that says which of 5,000 nodes descends from which would take 25 MB."""
    engine = OnnxEngine(llama.path, threads=1)
    state, _ = engine.prefill([3, 9, 4], [])
    tracemalloc.start()
    try:
        while len(state.parents) < 5000:
            nodes = np.arange(engine.most_tokens(state)) + len(state.parents)
            engine.extend(state, nodes % VOCABULARY, np.where(nodes % 5, nodes - 1, ROOT), [0], [1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert state.positions.max() == 3 + 4
    mine = extend_all(engine, state, [7], [4999], VOCABULARY, keep=False)
    tail = [node % VOCABULARY for node in range(4995, 5000)]
    other, _ = engine.prefill([3, 9, 4], [])
    engine.extend(other, tail, [ROOT, 0, 1, 2, 3], [], [])
    np.testing.assert_allclose(mine, extend_all(engine, other, [7], [4], VOCABULARY), atol=1e-4)


def test_a_cache_is_as_large_as_its_positions(llama: Exported) -> None:
    """Keys and values of two layers with two heads of 8 numbers in single precision."""
    state, _ = llama.engine.prefill([3, 9, 4], [])
    llama.engine.extend(state, [5, 6], [ROOT, 0], [], [])
    llama.engine.extend(state, [7], [1], [], [], keep=False)
    assert state.cache.nbytes == 2 * 2 * 2 * 5 * 8 * 4
