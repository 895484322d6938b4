"""Exports a causal language model as the ONNX graph that `adprior_runtime.engines.onnx` runs.

The inputs and outputs are those of `adprior_runtime.engines.onnx_graph`. In half precision (for
GPUs) the cache and all arithmetic except the last softmax are float16; "fp16-weights" only stores
the matrices in float16, and ONNX Runtime converts them to float32 when it loads the graph.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import DynamicCache

from adprior_build.repository.onnx_parity import LARGEST_HALF, Parity, check_parity
from adprior_build.training.checkpoint import next_token_logits
from adprior_runtime.engines import onnx_graph
from adprior_runtime.engines.kv_cache import LAYOUT
from adprior_runtime.engines.tree_mask import causal_mask
from adprior_runtime.errors import ArtefactError

PRECISIONS = ("fp32", "fp16-weights", "fp16")


class _PackedForward(torch.nn.Module):
    """The checkpoint's forward pass, with an explicit cache and log-softmax at wanted positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        wanted_positions: torch.Tensor,
        past_keys: torch.Tensor,
        past_values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        new = input_ids.shape[1]
        cache = DynamicCache(ddp_cache_data=list(zip(past_keys, past_values, strict=True)))
        output = self.model.get_decoder()(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            cache=cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state[:, wanted_positions]
        logits = next_token_logits(self.model, hidden)
        keys = torch.stack([layer.keys[:, :, -new:] for layer in cache.layers])
        values = torch.stack([layer.values[:, :, -new:] for layer in cache.layers])
        return torch.log_softmax(logits, dim=-1), keys, values


def export_onnx(model: Any, path: Path, *, name: str, precision: str = "fp32") -> Parity:
    """Export a model to one self-contained file and check it against its source.

    Args:
        model: A causal language model; ``fp16-weights`` rounds its matrices in place.
        path: The file to write.
        name: The checkpoint's name, for messages.
        precision: One of `PRECISIONS`.

    Returns:
        The difference between graph and checkpoint, which ``fp16-weights`` rounds first.

    Raises:
        ArtefactError: The graph does not compute the same as the checkpoint, or weights are too
            large for half precision.
    """
    if precision != "fp32":
        _require_half_weights(model, name, precision)
    if precision == "fp16-weights":
        _round_weights(model)
    model.config._attn_implementation = (
        "eager"  # takes a mask of any shape, and has no fast paths to trace
    )
    inputs = _sample_inputs(model)
    shapes = {
        tensor.name: dict.fromkeys(tensor.varying_axes, torch.export.Dim.DYNAMIC)
        for tensor in onnx_graph.INPUTS
    }
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _PackedForward(model),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            output_names=list(onnx_graph.OUTPUT_NAMES),
        )
    if program is None:
        raise ArtefactError("torch.onnx.export gave no program")
    proto = program.model_proto
    _strip(proto)
    config = model.config.get_text_config()
    onnx.helper.set_model_props(
        proto, {onnx_graph.MAX_POSITIONS: str(config.max_position_embeddings)}
    )
    if precision == "fp16":
        proto = _halved(proto)
    elif precision == "fp16-weights":
        _halve_weights(proto)
    onnx.save(proto, str(path))
    return check_parity(model, path, name=name, precision=precision)


def _sample_inputs(model: Any) -> dict[str, torch.Tensor]:
    config = model.config.get_text_config()
    new, past = 5, 7
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    sizes = {"layers": config.num_hidden_layers, "key_value_heads": heads}
    sizes |= {"past": past, "head_size": head_size}
    cache = [axis if isinstance(axis, int) else sizes[axis] for axis in LAYOUT]
    mask = np.pad(causal_mask(new), ((0, 0), (past, 0)))
    return {
        onnx_graph.INPUT_IDS: torch.arange(new)[None],
        onnx_graph.POSITION_IDS: torch.arange(past, past + new)[None],
        onnx_graph.ATTENTION_MASK: torch.from_numpy(mask)[None, None],
        onnx_graph.WANTED_POSITIONS: torch.tensor([1, new - 1]),
        onnx_graph.PAST_KEYS: torch.randn(cache),
        onnx_graph.PAST_VALUES: torch.randn(cache),
    }


def _halved(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in half precision, except for its mask and its log-probabilities."""
    from onnxruntime.transformers import float16  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights too small for half precision
        halved: onnx.ModelProto = float16.convert_float_to_float16(
            proto,
            keep_io_types=[onnx_graph.ATTENTION_MASK, onnx_graph.LOG_PROBS],
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "LogSoftmax"],
        )
    return halved


def _require_half_weights(model: Any, name: str, precision: str) -> None:
    """Refuse weights beyond the largest number of half precision: the conversion would cut them."""
    for weights in model.parameters():
        if precision == "fp16-weights" and weights.ndim < 2:
            continue
        largest = float(weights.detach().abs().max())
        if largest > LARGEST_HALF:
            raise ArtefactError(
                f"{name}: has a weight of {largest:,.0f}, {precision} holds at most "
                f"{LARGEST_HALF:,}; build with --precision fp32"
            )


def _round_weights(model: Any) -> None:
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim >= 2:
                weights.copy_(weights.half())


def _halve_weights(proto: onnx.ModelProto) -> None:
    """Store a graph's matrices in half precision, each with a cast that is folded at load."""
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        halved = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, f"{name}.half"))
        casts.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which name files of this machine."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    proto.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter, which reports each stage; a failure still raises."""
    root = logging.getLogger("torch.onnx")
    level = root.level
    root.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            root.setLevel(level)
