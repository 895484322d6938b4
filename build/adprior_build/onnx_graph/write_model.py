"""Writes ``model.onnx`` from a checkpoint's configuration and weights.

The graph keeps the contract of `adprior_runtime.engines.onnx_graph`. It is written with NumPy and
the package onnx: no model runs, and one layer's weights are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from onnx import TensorProto

from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.decoder import Decoder, PassInputs
from adprior_build.onnx_graph.log_probs import Vocabulary
from adprior_build.onnx_graph.matrices import Matrices, Weights
from adprior_build.onnx_graph.model_file import ModelFile
from adprior_build.onnx_graph.quantised_weights import Quantisation
from adprior_runtime.engines import onnx_graph
from adprior_runtime.engines.architecture import EMBEDDING, OUTPUT, Architecture
from adprior_runtime.engines.base import VOCABULARY_CHUNK

PRECISIONS: Final[Mapping[str, Quantisation | None]] = {
    "fp32": None,
    "int8": Quantisation(block=32),
}
"""How matrices are stored, by the option ``adprior build --precision``."""

DEFAULT_PRECISION: Final = "fp32"

_ELEMENTS: Final = {onnx_graph.INTEGER: TensorProto.INT64, onnx_graph.SINGLE: TensorProto.FLOAT}


def write_model(
    config: Mapping[str, Any],
    weights: Weights,
    path: Path,
    *,
    precision: str = "fp32",
    chunk: int = VOCABULARY_CHUNK,
) -> None:
    """Write a model.

    Args:
        config: The content of the checkpoint's ``config.json``.
        weights: Its weights.
        path: The file.
        precision: One of `PRECISIONS`.
        chunk: Most tokens whose logits are computed at once.

    Raises:
        InvalidInputError: The architecture is not supported, weights do not fit it, or the file
            would be too large.
    """
    of = read_architecture(config)
    file = ModelFile()
    matrices = Matrices(file, weights, PRECISIONS[precision])
    _declare_inputs(file, of)
    inputs = _pass_inputs(file, of)
    shape = (of.vocabulary, of.hidden)
    embedding = Vocabulary(file, matrices, EMBEDDING, shape, chunk, is_tied=of.tied)
    output = embedding if of.tied else Vocabulary(file, matrices, OUTPUT, shape, chunk)
    decoder = Decoder(file, matrices, of, inputs)
    flat = file.constant([-1])
    tokens = file.node("Reshape", onnx_graph.INPUT_IDS, flat)
    wanted = decoder.run(embedding.embed(tokens, of.embedding_scale))
    log_probs = output.log_probs(wanted, onnx_graph.PAIR_ROWS, onnx_graph.PAIR_TOKENS, of.final_cap)
    matrices.require_all_taken()
    outputs = [*onnx_graph.OUTPUTS, *onnx_graph.cache_tensors(of.layers)]
    for tensor, source in zip(outputs, [log_probs, *decoder.cache], strict=True):
        file.output(tensor.name, source, _ELEMENTS[tensor.type], _dims(tensor, of))
    metadata = {
        onnx_graph.LAYERS: str(of.layers),
        onnx_graph.CONTRACT: onnx_graph.CONTRACT_VERSION,
        onnx_graph.MAX_POSITIONS: str(of.max_positions),
        onnx_graph.VOCABULARY: str(of.vocabulary),
    }
    file.write(path, metadata)


def _declare_inputs(file: ModelFile, of: Architecture) -> None:
    for tensor in (*onnx_graph.INPUTS, *onnx_graph.past_tensors(of.layers)):
        file.input(tensor.name, _ELEMENTS[tensor.type], _dims(tensor, of))


def _dims(tensor: onnx_graph.GraphTensor, of: Architecture) -> list[int | str]:
    sizes = {"key_value_heads": of.key_value_heads, "head_size": of.head_size}
    return [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.dims]


def _pass_inputs(file: ModelFile, of: Architecture) -> PassInputs:
    return PassInputs(
        positions=file.node("Reshape", onnx_graph.POSITION_IDS, file.constant([-1])),
        key_positions=onnx_graph.KEY_POSITIONS,
        mask=onnx_graph.ATTENTION_MASK,
        wanted=onnx_graph.WANTED_POSITIONS,
        past=[tensor.name for tensor in onnx_graph.past_tensors(of.layers)],
    )
