"""Writes ``architecture.json`` and ``model.safetensors`` from a checkpoint, without torch.

The file is written one weight at a time, so a model needs little more memory than its largest
matrix; the package safetensors takes all weights at once. The format is the length of a header in 8
bytes, the header in JSON, and the weights (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.matrices import Weights
from adprior_build.torch_model.bfloat16 import Bfloat16
from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE
from adprior_runtime.engines.architecture import Architecture, differing_weight, weight_shapes
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track
from adprior_runtime.text.json_text import to_json

TORCH_PRECISIONS: Final[Mapping[str, Bfloat16 | None]] = {"fp32": None, "bf16": Bfloat16()}
"""How matrices are stored, by the option ``adprior build --precision``."""

_ALIGNMENT: Final = 8


def write_torch_model(
    config: Mapping[str, Any], weights: Weights, directory: Path, *, precision: str = "fp32"
) -> None:
    """Write a model's architecture and weights.

    Args:
        config: The content of the checkpoint's ``config.json``.
        weights: Its weights.
        directory: Where to write the files.
        precision: One of `TORCH_PRECISIONS`. Vectors stay in single precision.

    Raises:
        InvalidInputError: The architecture is not supported, or weights do not fit it.
    """
    of, rounding = read_architecture(config), TORCH_PRECISIONS[precision]
    shapes = _checked_shapes(of, weights)
    is_rounded = {name: rounding is not None and len(shape) > 1 for name, shape in shapes.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * (2 if is_rounded[name] else 4)
        kind = "BF16" if is_rounded[name] else "F32"
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = to_json(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with (directory / TORCH_WEIGHTS_FILE).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in track(shapes.items(), desc="writing the weights", unit="weight"):
            values = _read(weights, name, shape)
            stored = (
                values if rounding is None or not is_rounded[name] else rounding.encoded(values)
            )
            file.write(stored.data)
    (directory / ARCHITECTURE_FILE).write_text(of.to_json(), encoding="utf-8")


def _checked_shapes(of: Architecture, weights: Weights) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name, the widest type first, so that every weight is aligned."""
    names = frozenset(weights)
    if difference := differing_weight(of, names):
        raise InvalidInputError(f"the checkpoint {difference}")
    return dict(sorted(weight_shapes(of, names).items(), key=lambda item: len(item[1])))


def _read(weights: Weights, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    values = np.ascontiguousarray(weights[name], dtype=np.float32)
    if values.shape != shape:
        raise InvalidInputError(
            f"the checkpoint's {name} is {list(values.shape)}, by its config.json it is "
            f"{list(shape)}"
        )
    return values
