from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_bench.first_engine import plain_beam_search
from adprior_bench.generate_peer import generate_names
from adprior_bench.synthetic import END_ID, PRECISIONS, quantised_copy, random_catalogue
from adprior_build.onnx_export import export_onnx
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.search import SearchMode, SearchSettings, TrieSearch
from adprior_runtime.trie import Trie

WIDTH = 6
PROMPT = [5, 9, 4, 7]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=40,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=0,
    )
    llama = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(llama, path)
    return llama, path


@pytest.fixture(scope="module")
def trie() -> Trie:
    random = np.random.default_rng(2)
    names = {
        (*random.integers(3, 40, size=random.integers(1, 4)).tolist(), END_ID) for _ in range(90)
    }
    return Trie.build(sorted(names), np.arange(len(names)))


def test_a_random_catalogue_has_the_size_and_lengths_asked_for() -> None:
    catalogue = random_catalogue(500)
    assert len(catalogue.leaf_nodes) == 500
    _, lengths = catalogue.paths(catalogue.leaf_nodes)
    assert set(lengths.tolist()) == {5, 6, 7}  # 4 to 6 tokens and the terminator


def test_the_peers_find_what_the_search_finds(model: tuple[Any, Path], trie: Trie) -> None:
    llama, path = model
    engine = OnnxEngine(path, threads=1)
    settings = SearchSettings(mode=SearchMode.BEAM, width=WIDTH)
    result = TrieSearch(engine, trie, PROMPT, settings).run(WIDTH)
    plain = plain_beam_search(engine, PROMPT, trie, WIDTH)
    np.testing.assert_allclose(
        [score for score, _ in plain[:WIDTH]], result.log_probs[:WIDTH], atol=1e-4
    )
    generated = generate_names(llama, PROMPT, trie, WIDTH, END_ID)
    assert generated
    scores = TrieSearch(engine, trie, PROMPT, settings).score(
        np.array([trie.lookup(name) for _, name in generated])
    )
    np.testing.assert_allclose([s for s, _ in generated], scores.log_probs, atol=1e-3)
    assert result.log_probs[len(generated) - 1] >= generated[-1][0] - 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_quantised_copy_is_the_same_model_roughly(
    model: tuple[Any, Path], precision: str
) -> None:
    _, path = model
    exact = OnnxEngine(path, threads=1).prefill(PROMPT)[1]
    rough = OnnxEngine(quantised_copy(path, precision), threads=1).prefill(PROMPT)[1]
    difference = float(np.abs(exact - rough).max())
    assert 0 < difference < float(exact.max() - exact.min())
