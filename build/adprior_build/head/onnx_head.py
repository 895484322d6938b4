"""Writes prior heads as ONNX, and checks each against NumPy before it replaces the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from adprior_build.head.clamp_in_graph import apply_in_numpy, clamp_constants, clamp_nodes
from adprior_build.head.variants import Head
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import ArtefactError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.head import head_graph
from adprior_runtime.head.features import FEATURE_NAMES, CandidatePriors
from adprior_runtime.head.head import Adjusted, PriorHead
from adprior_runtime.text.json_text import to_json

_OPSET: Final = 17
_IR_VERSION: Final = 8
_TOLERANCE: Final = 1e-5
_CHECKED_ROWS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMetadata:
    """The metadata of a head; see `adprior_runtime.head.head_graph.METADATA_KEYS`.

    Attributes:
        kind: One of `adprior_build.head.variants.VARIANTS`, or ``identity`` for a head that changes
            nothing.
        forecast_k, engine, catalogue_fingerprint: Those of the bundle.
        fitted_rows: Number of rows that the head was fitted on.
    """

    kind: str = "logistic"
    forecast_k: int
    engine: str
    catalogue_fingerprint: str
    fitted_rows: int


def adjust_logits(
    head: Head, base_logits: npt.NDArray[np.float32], priors: CandidatePriors
) -> Adjusted:
    """Return what the written graph must return, computed in NumPy."""
    return apply_in_numpy(head.increments(priors.features), head.clamp, base_logits, priors)


def write_head(path: Path, head: Head, metadata: HeadMetadata) -> None:
    """Write a head beside ``path``, check it, and rename it to ``path``.

    Raises:
        ArtefactError: The graph cannot be loaded, or differs from NumPy by more than 1e-5.
    """
    with replace_file(path) as fresh:
        fresh.write_bytes(_make_model(head, metadata).SerializeToString())
        written = PriorHead(fresh)
        for has_forecast in (True, False):
            _check_parity(written, head, has_forecast=has_forecast)


def write_identity_head(
    path: Path, *, forecast_k: int, engine: str, catalogue_fingerprint: str
) -> None:
    """Write a head that changes no logit, for a bundle before its first fit."""
    zeros = np.zeros(len(FEATURE_NAMES))
    write_head(
        path,
        Head(weights=zeros, bias=0.0, mean=zeros, scale=np.ones(len(FEATURE_NAMES))),
        HeadMetadata(
            kind=head_graph.IDENTITY,
            forecast_k=forecast_k,
            engine=engine,
            catalogue_fingerprint=catalogue_fingerprint,
            fitted_rows=0,
        ),
    )


def _make_model(head: Head, metadata: HeadMetadata) -> Any:
    constants = head.constants() | clamp_constants(head.clamp)
    nodes = [
        helper.make_node("Cast", [head_graph.FEATURES], ["wide"], to=TensorProto.DOUBLE),
        *head.nodes("wide", "increment"),
        *clamp_nodes("increment"),
    ]
    rows, describe = "candidates", helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "prior_head",
        [
            describe(head_graph.BASE_LOGITS, TensorProto.FLOAT, [rows]),
            describe(head_graph.FEATURES, TensorProto.FLOAT, [rows, len(FEATURE_NAMES)]),
            describe(head_graph.STATUSES, TensorProto.UINT8, [rows]),
            describe(head_graph.HAS_FORECAST, TensorProto.BOOL, [1]),
        ],
        [describe(name, TensorProto.FLOAT, [rows]) for name in head_graph.OUTPUT_NAMES],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="adprior")
    model.ir_version = _IR_VERSION
    helper.set_model_props(model, _metadata_text(head, metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _metadata_text(head: Head, metadata: HeadMetadata) -> dict[str, str]:
    return {
        "kind": metadata.kind,
        "feature_names": to_json(FEATURE_NAMES),
        "clamp": repr(float(head.clamp)),
        "forecast_k": str(metadata.forecast_k),
        "engine": metadata.engine,
        "catalogue_fingerprint": metadata.catalogue_fingerprint,
        "fitted_rows": str(metadata.fitted_rows),
    }


def _check_parity(written: PriorHead, head: Head, *, has_forecast: bool) -> None:
    random = np.random.default_rng(0)
    rows = (_CHECKED_ROWS, len(FEATURE_NAMES))
    priors = CandidatePriors(
        log_probs=np.zeros(_CHECKED_ROWS, dtype=np.float32),
        statuses=random.integers(0, len(CandidateStatus), _CHECKED_ROWS).astype(np.uint8),
        features=random.uniform(-10.0, 10.0, rows).astype(np.float32),
        has_forecast=has_forecast,
    )
    base_logits = random.normal(0.0, 3.0, _CHECKED_ROWS).astype(np.float32)
    expected = adjust_logits(head, base_logits, priors)
    found = written.adjust(base_logits, priors)
    difference = float(np.abs(np.stack(found) - np.stack(expected)).max())
    if not difference <= _TOLERANCE:
        raise ArtefactError(
            f"head: the graph differs from NumPy by {difference:.1e}, expected {_TOLERANCE:.0e}"
        )
