from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adprior_build.onnx_graph import model_file
from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.reference import Reference
from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import InvalidInputError
from support.small_models import (
    FAMILIES,
    VOCABULARY,
    small_gemma3,
    small_llama,
    small_qwen3,
    weights_of,
)
from support.whole_vocabulary import extend_all, prefill_all

PROMPT = [int(token) for token in np.random.default_rng(3).integers(0, VOCABULARY, 40)]


@pytest.mark.parametrize("make", FAMILIES)
def test_the_reference_is_the_model_of_transformers(make: Callable[[], Any]) -> None:
    """In double precision the two agree to 12 digits, but for what transformers does in single."""
    model = make()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0, -3:]
    expected = torch.log_softmax(logits.double(), dim=-1).numpy()
    architecture = read_architecture(model.config.to_dict())
    found = Reference(architecture, weights_of(model)).log_probs([PROMPT, PROMPT[:9]], 3)
    assert found.shape == (2, 3, VOCABULARY)
    np.testing.assert_allclose(found[0], expected, atol=2e-4)


@pytest.mark.parametrize("make", [small_llama, small_qwen3])  # an output matrix, tied embeddings
def test_chunks_of_the_vocabulary_change_nothing(make: Callable[[], Any], tmp_path: Path) -> None:
    model, found = make(), []
    for chunk in (VOCABULARY, 16):
        path = tmp_path / f"{chunk}.onnx"
        write_model(model.config.to_dict(), weights_of(model), path, chunk=chunk)
        engine = OnnxEngine(path, threads=1)
        state, first = prefill_all(engine, PROMPT, VOCABULARY)
        found.append([first, *extend_all(engine, state, [3, 49], [ROOT, 0], VOCABULARY)])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_no_product_has_the_width_of_a_large_vocabulary(tmp_path: Path) -> None:
    model = small_qwen3()
    write_model(model.config.to_dict(), weights_of(model), tmp_path / "model.onnx", chunk=16)
    graph = onnx.load(tmp_path / "model.onnx").graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "Gemm"]
    rows = [sizes[node.input[1]][0] for node in products]
    assert VOCABULARY not in rows
    assert rows[-4:] == [12, 13, 12, 13]


@pytest.mark.parametrize(("chunk", "unpacked"), [(16, 4), (VOCABULARY, 0)])
def test_tied_embeddings_of_a_large_vocabulary_are_in_memory_once(
    tmp_path: Path, chunk: int, unpacked: int
) -> None:
    """ONNX Runtime packs constants, and would keep the originals for the rows that are taken."""
    model = small_qwen3()
    write_model(model.config.to_dict(), weights_of(model), tmp_path / "model.onnx", chunk=chunk)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert len(session.get_overridable_initializers()) == unpacked


def test_the_last_layer_computes_only_wanted_rows(tmp_path: Path) -> None:
    model = small_gemma3()
    write_model(model.config.to_dict(), weights_of(model), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    producers = {name: node for node in graph.node for name in node.output}
    by_weight = {node.input[1]: node.input[0] for node in graph.node if node.op_type == "Gemm"}
    query = by_weight["model.layers.1.self_attn.q_proj.weight"]
    assert producers[query].op_type == "Gather"
    assert producers[query].input[1] == "wanted_positions"
    assert "model.layers.0.self_attn.q_proj.weight" not in by_weight  # joined with keys and values


def test_a_graph_names_no_file_of_this_machine(tmp_path: Path) -> None:
    model, path = small_qwen3(), tmp_path / "model.onnx"
    write_model(model.config.to_dict(), weights_of(model), path)
    content = path.read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() + b"/" not in content
    onnx.load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_beyond_what_onnx_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = small_qwen3(), tmp_path / "model.onnx"
    monkeypatch.setattr(model_file, "MAX_BYTES", 20_000)
    with pytest.raises(InvalidInputError, match=r"GB, one ONNX file holds at most .*--precision"):
        write_model(model.config.to_dict(), weights_of(model), path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba', expected one of llama, mistral, "),
        ({"hidden_size": None}, "hidden_size is None, expected a number"),
        ({"hidden_activation": "relu"}, "the activation is 'relu', expected silu"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries .*, expected 2 of"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is not supported"),
        ({"hidden_size": 48}, r"embed_tokens.weight is \[50, 32\], by its .* \[50, 48\]"),
        ({"num_hidden_layers": 1, "layer_types": ["full_attention"]}, "has 13 weights that its"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rotary embedding is 'yarn' on 1 of each head, expected default, linear, llama3",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    model = small_gemma3()
    config = model.config.to_dict() | changed
    with pytest.raises(InvalidInputError, match=message):
        write_model(config, weights_of(model), tmp_path / "model.onnx")


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    model = small_qwen3()
    weights = dict(weights_of(model))
    del weights["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(InvalidInputError, match=r"has no weight model\.layers\.1\.mlp\.up_proj"):
        write_model(model.config.to_dict(), weights, tmp_path / "model.onnx")


def test_settings_of_earlier_versions_of_transformers_mean_the_same() -> None:
    """Published files have the older names, and leave out what is the family's default."""
    model = small_gemma3()
    new = read_architecture(model.config.to_dict())
    old = model.config.to_dict()
    del old["rope_parameters"], old["tie_word_embeddings"], old["hidden_activation"]
    old |= {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"type": "linear", "factor": 8.0},
    }
    assert read_architecture(old) == new
    llama = small_llama().config.to_dict()
    older = llama | {"rope_parameters": None, "rope_theta": 5e5}
    older["rope_scaling"] = {
        key: value for key, value in llama["rope_parameters"].items() if key != "rope_theta"
    }
    assert read_architecture(older) == read_architecture(llama)
