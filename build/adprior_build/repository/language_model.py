"""Writes the language model of an unfinished bundle, for the engine of its manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from adprior_build.checkpoints.checkpoint import Checkpoint, open_checkpoint
from adprior_build.onnx_graph.parity import LONGEST_CHECKED_PROMPT, Parity, check_parity
from adprior_build.onnx_graph.reference import Rounding
from adprior_build.onnx_graph.write_model import PRECISIONS, write_model
from adprior_build.torch_model.bfloat16 import product_in_parts
from adprior_build.torch_model.write_model import TORCH_PRECISIONS, write_torch_model
from adprior_runtime.bundle import ONNX_MODEL_FILE, TRIE_DIRECTORY, Manifest
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine
from adprior_runtime.engines.registry import BFLOAT16_PARTS, ONNX, TORCH, torch_is_missing
from adprior_runtime.search.rounding import error_of_engine, rounded_up

_Written = tuple[Engine[Any], Rounding | None]

ENGINE_PRECISIONS: Final = {ONNX.name: (*PRECISIONS,), TORCH.name: (*TORCH_PRECISIONS,)}
"""The values of ``adprior build --precision``, by the engine that they are for."""


def add_language_model(
    checkpoint: Path,
    directory: Path,
    manifest: Manifest,
    precision: str,
    device: str,
) -> tuple[Manifest, Parity]:
    """Write the model, and check it on names of the bundle's catalogue.

    Args:
        checkpoint: The checkpoint.
        directory: The bundle, which has its trie.
        manifest: The bundle's.
        precision: One of the engine's in `ENGINE_PRECISIONS`.
        device: Where the check runs, ``cpu``, or ``cuda`` for the torch engine.

    Returns:
        The manifest that describes the model, and its difference from the checkpoint.

    Raises:
        ArtefactError: The model differs from the checkpoint by more than rounding explains.
        EnvironmentProblemError: A package of the engine is not installed, or the device cannot be
            used.
    """
    of = open_checkpoint(checkpoint)
    if manifest.engine == TORCH.name:
        engine, rounding = _write_torch(of, directory, precision, device, manifest.products)
    else:
        engine, rounding = _write_onnx(of, directory, precision)
    trie = Trie.load(directory / TRIE_DIRECTORY)
    chosen = np.random.default_rng(0).choice(trie.leaf_nodes, LONGEST_CHECKED_PROMPT)
    names, lengths = trie.paths(chosen)
    tokens = names[np.arange(names.shape[1]) < lengths[:, None]]
    parity = check_parity(
        of.config,
        of.weights,
        engine,
        name=str(checkpoint),
        precision=precision,
        rounding=rounding,
        multiply=product_in_parts if manifest.products == BFLOAT16_PARTS else np.matmul,
        text=[*manifest.prompt_head_ids, *tokens.tolist()],
    )
    described = replace(
        manifest,
        log_prob_error=error_of_engine(parity.difference),
        error_device=device,
        precision=precision,
        precision_loss=rounded_up(parity.mean_loss) if parity.mean_loss else 0.0,
    )
    return described, parity


def _write_onnx(of: Checkpoint, directory: Path, precision: str) -> _Written:
    from adprior_runtime.engines.onnx import OnnxEngine  # noqa: PLC0415  onnxruntime

    path = directory / ONNX_MODEL_FILE
    write_model(of.config, of.weights, path, precision=precision)
    return OnnxEngine(path), PRECISIONS[precision]


def _write_torch(
    of: Checkpoint, directory: Path, precision: str, device: str, products: str
) -> _Written:
    try:  # first: without torch the check could not run, and the files would be for nothing
        from adprior_runtime.engines.torch_engine import TorchEngine  # noqa: PLC0415  torch
    except ImportError as error:
        raise torch_is_missing(error) from error
    write_torch_model(of.config, of.weights, directory, precision=precision)
    engine = TorchEngine(directory, device=device, products=products)
    return engine, TORCH_PRECISIONS[precision]
