"""Random models and catalogues of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Trie

VOCABULARY = 8192
END_ID = 1
PRECISIONS = {"int8": (8, 0), "int8+int8": (8, 4), "int4": (4, 0), "int4+int8": (4, 4)}
"""Bits of a weight, and ONNX Runtime's accuracy level (4 computes in int8)."""

_FIRST_WORD = 3
_SHORTEST, _LONGEST = 4, 6


def synthetic_llama(directory: Path, seed: int = 0) -> tuple[Any, Path]:
    """Return a random Llama of 14 M parameters, and its ONNX graph in ``directory``."""
    import torch  # noqa: PLC0415  heavy
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  heavy

    from adprior_build.repository.onnx_export import export_onnx  # noqa: PLC0415  heavy

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=384,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=END_ID,
            pad_token_id=0,
        )
    ).eval()
    path = directory / "model.onnx"
    export_onnx(model, path, name="the synthetic model")
    return model, path


def quantised_copy(path: Path, precision: str) -> Path:
    """Return a copy of an ONNX graph with weight-only quantisation.

    Args:
        path: The graph, in single precision or with weights in half precision.
        precision: One of `PRECISIONS`; ``+int8`` also computes matrix products in int8, with one
            scale for each block of 32 activations.
    """
    import onnx  # noqa: PLC0415  heavy
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415  heavy
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    bits, level = PRECISIONS[precision]
    config = DefaultWeightOnlyQuantConfig(
        block_size=32, is_symmetric=True, accuracy_level=level, bits=bits
    )
    source = onnx.load(str(path))
    _restore_weights(source)
    metadata = {item.key: item.value for item in source.metadata_props}
    quantizer = MatMulNBitsQuantizer(source, algo_config=config)
    quantizer.process()
    onnx.helper.set_model_props(quantizer.model.model, metadata)
    target = path.with_name(f"model-{precision}.onnx")
    onnx.save(quantizer.model.model, str(target))
    return target


def _restore_weights(proto: Any) -> None:
    """Replace half-precision weights that the graph casts to single precision."""
    import onnx  # noqa: PLC0415  heavy

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    casts = [n for n in proto.graph.node if n.op_type == "Cast" and n.input[0] in weights]
    for cast in casts:
        tensor = weights[cast.input[0]]
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            single = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(single, cast.output[0]))
            proto.graph.node.remove(cast)


def random_catalogue(size: int, seed: int = 1) -> Trie:
    """Return ``size`` different names of 4 to 6 random tokens and the terminator."""
    random = np.random.default_rng(seed)
    tokens = random.integers(_FIRST_WORD, VOCABULARY, size=(2 * size, _LONGEST), dtype=np.int32)
    lengths = random.integers(_SHORTEST, _LONGEST + 1, size=2 * size)
    tokens[np.arange(_LONGEST) >= lengths[:, None]] = 0
    distinct: npt.NDArray[np.int32] = np.unique(tokens, axis=0)
    chosen = random.permutation(len(distinct))[:size]
    paths = [[*row[row > 0].tolist(), END_ID] for row in distinct[chosen]]
    return Trie.build(paths, np.arange(size))
