"""The contract of ``head.onnx``: its inputs, outputs and metadata.

`adprior_build.head.onnx_head` writes such a graph, and `adprior_runtime.head.head` checks and runs
it. These are names within the graph. They never meet the tensors of Triton's models, whose names
are in `adprior_runtime.contract`.
"""

from __future__ import annotations

from typing import Final

BASE_LOGITS: Final = "base_logits"
FEATURES: Final = "features"
STATUSES: Final = "statuses"
HAS_FORECAST: Final = "has_forecast"
ADJUSTED_LOGITS: Final = "adjusted_logits"
ADJUSTMENTS: Final = "adjustments"

INPUT_TYPES: Final = {
    BASE_LOGITS: "tensor(float)",
    FEATURES: "tensor(float)",
    STATUSES: "tensor(uint8)",
    HAS_FORECAST: "tensor(bool)",
}
"""ONNX Runtime's type of each input. The shapes are [n], [n, 6], [n] and [1]."""

OUTPUT_NAMES: Final = (ADJUSTED_LOGITS, ADJUSTMENTS)
"""Outputs of the graph: float32 [n] each."""

IDENTITY: Final = "identity"
"""The ``kind`` of a bundle's head before its first fit; it changes nothing."""

METADATA_KEYS: Final = (
    "kind",
    "feature_names",
    "clamp",
    "forecast_k",
    "engine",
    "catalogue_fingerprint",
    "fitted_rows",
)
"""Keys of the file's metadata: text, ``feature_names`` as a JSON list."""
