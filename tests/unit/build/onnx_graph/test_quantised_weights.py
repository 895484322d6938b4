from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from adprior_build.onnx_graph.matrices import Matrix
from adprior_build.onnx_graph.model_file import ModelFile
from adprior_build.onnx_graph.parity import check_parity
from adprior_build.onnx_graph.quantised_weights import Quantisation
from adprior_build.onnx_graph.write_model import PRECISIONS, write_model
from adprior_runtime.engines.onnx import OnnxEngine
from support.small_models import MAX_POSITIONS, VOCABULARY, small_gemma3, small_llama, weights_of

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("columns", [32, 40, 64])
def test_a_weight_is_off_by_half_a_step_at_most(columns: int) -> None:
    matrix = RANDOM.normal(size=(7, columns)).astype(np.float32)
    matrix[3] = 0
    rounded = Quantisation(block=32).rounded(matrix)
    steps = np.abs(matrix).max(axis=1) / 127
    assert (np.abs(rounded - matrix).max(axis=1) <= 0.51 * steps).all()
    assert np.abs(rounded - matrix).max() > 0


@pytest.mark.parametrize("columns", [40, 64])
def test_a_rows_product_is_the_references_alone_and_beside_others(
    tmp_path: Path, columns: int
) -> None:
    matrix = RANDOM.normal(size=(24, columns)).astype(np.float32)
    values = RANDOM.normal(size=(33, columns)).astype(np.float32)
    values[:, 5] *= 50  # outliers, as activations have them
    quantisation = Quantisation(block=32)
    file = ModelFile()
    given = file.input("values", onnx.TensorProto.FLOAT, ["rows", columns])
    product = Matrix(file, "matrix", (24, columns), lambda: matrix, quantisation).product(given)
    file.output("product", product, onnx.TensorProto.FLOAT, ["rows", 24])
    file.write(tmp_path / "product.onnx", {})
    session = onnxruntime.InferenceSession(str(tmp_path / "product.onnx"))
    together = session.run(None, {"values": values})[0]
    alone = [session.run(None, {"values": row[None]})[0][0] for row in values]
    expected = values @ quantisation.rounded(matrix).T
    np.testing.assert_allclose(together, expected, atol=2e-4)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("make", [small_gemma3, small_llama])
def test_a_quantised_graph_is_the_rounded_checkpoint(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    model = make()
    weights = {  # calmer than the other tests' models, as trained ones are
        name: values * np.float32(0.3 if values.ndim == 2 else 1)
        for name, values in weights_of(model).items()
    }
    config, path = model.config.to_dict(), tmp_path / "model.onnx"
    write_model(config, weights, path, precision="int8")
    text = RANDOM.integers(0, VOCABULARY, MAX_POSITIONS // 2).tolist()
    engine, rounding = OnnxEngine(path), PRECISIONS["int8"]
    parity = check_parity(config, weights, engine, name="small", rounding=rounding, text=text)
    assert parity.difference <= parity.tolerance < 1e-3
    assert 1e-4 < parity.mean_loss < 0.05
    assert parity.mean_loss < parity.largest_loss < 0.5
    assert "; int8 changes a probable token's by 0.0" in parity.in_words("int8")


def test_a_graph_that_restores_its_matrices_holds_only_single_precision(tmp_path: Path) -> None:
    """ONNX Runtime folds the nodes that restore a matrix, so that no pass pays for them."""
    model, path = small_llama(), tmp_path / "model.onnx"
    write_model(model.config.to_dict(), weights_of(model), path, precision="int8")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(path), options)
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    left = [tensor.name for tensor in loaded.initializer if tensor.name.endswith(".numbers")]
    assert left == ["model.embed_tokens.weight.0.numbers"]  # rows are gathered from it


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_precision_holds_gemma_3_in_float16(tmp_path: Path, precision: str) -> None:
    """Its activations overflow float16 (transformers #36822): no tensor, and no cast to it."""
    model, path = small_gemma3(), tmp_path / "model.onnx"
    write_model(model.config.to_dict(), weights_of(model), path, precision=precision)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    kinds |= {item.i for node in graph.node for item in node.attribute if item.name == "to"}
    assert onnx.TensorProto.FLOAT in kinds
    assert onnx.TensorProto.FLOAT16 not in kinds


def test_every_precision_but_the_first_makes_the_file_smaller(tmp_path: Path) -> None:
    model, sizes = small_llama(), {}
    for precision in PRECISIONS:
        path = tmp_path / f"{precision}.onnx"
        write_model(model.config.to_dict(), weights_of(model), path, precision=precision)
        sizes[precision] = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
        assert OnnxEngine(path, threads=1).prefill([3, 4], [5])[1].read_all() < 0
    assert sizes["int8"] < 0.5 * sizes["fp32"]
