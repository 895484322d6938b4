"""The prior head: adds a small clamped g(x) to the ranker's logits, z' = z + g(x).

Without a forecast, or off the catalogue, z' = z bit for bit. The graph itself clamps g
(`adprior_build.head.clamp_in_graph`). Its tensors and metadata are in
`adprior_runtime.head.head_graph`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from adprior_runtime.bundle import Manifest
from adprior_runtime.engines.registry import forecast_alike
from adprior_runtime.errors import ArtefactError
from adprior_runtime.head.features import FEATURE_NAMES, CandidatePriors
from adprior_runtime.head.head_graph import (
    ADJUSTED_LOGITS,
    BASE_LOGITS,
    FEATURES,
    HAS_FORECAST,
    IDENTITY,
    INPUT_TYPES,
    METADATA_KEYS,
    OUTPUT_NAMES,
    STATUSES,
)

_REMEDY: Final = "fit one on this bundle's answers (adprior fit-head)"


class EarlierHeadError(ArtefactError):
    """A head of an earlier version of adprior.

    Attributes:
        is_fitted: False for a head that changes nothing; a build can replace it.
    """

    def __init__(self, path: Path, *, is_fitted: bool) -> None:
        super().__init__(
            f"{path}: a head of an earlier version of adprior: found the output {ADJUSTED_LOGITS}, "
            f"expected {' and '.join(OUTPUT_NAMES)}; fit a new head (adprior fit-head), then build "
            "with it (adprior build --bundle BUNDLE --head HEAD)"
        )
        self.is_fitted = is_fitted


class Adjusted(NamedTuple):
    """The result of the head for n candidates.

    Attributes:
        logits: float32 [n], the base logits plus the adjustments.
        adjustments: float32 [n], clip(g(x), -clamp, clamp), 0 where there is no prior.
    """

    logits: npt.NDArray[np.float32]
    adjustments: npt.NDArray[np.float32]


class PriorHead:
    """A head loaded from ``head.onnx``; threads may share it.

    Args:
        path: The file.

    Raises:
        ArtefactError: The file is missing, corrupt, no prior head, or fitted with other features.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            metadata = dict(self._session.get_modelmeta().custom_metadata_map)
            types = {item.name: item.type for item in self._session.get_inputs()}
            outputs = [item.name for item in self._session.get_outputs()]
        except Exception as error:  # ONNX Runtime's errors share no public base
            reason = " ".join(str(error).split())
            raise ArtefactError(f"{path}: not a prior head in ONNX: {reason}") from error
        if outputs == [ADJUSTED_LOGITS]:
            raise EarlierHeadError(path, is_fitted=metadata.get("kind") != IDENTITY)
        if types != INPUT_TYPES or outputs != list(OUTPUT_NAMES):
            raise ArtefactError(
                f"{path}: not a prior head: found inputs {types} and outputs {outputs}, "
                f"expected {INPUT_TYPES} and {list(OUTPUT_NAMES)}"
            )
        _check_metadata(path, metadata)
        self._path = path
        self._metadata = metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata, under `METADATA_KEYS`."""
        return self._metadata

    @property
    def is_fitted(self) -> bool:
        """Whether it was fitted; a fitted head may still leave candidates unchanged."""
        return str(self._metadata["kind"]) != IDENTITY

    @property
    def limit(self) -> float:
        """The largest change of a logit, up or down: 0 for a head that was never fitted."""
        return float(self._metadata["clamp"]) if self.is_fitted else 0.0

    def require_belongs(self, manifest: Manifest) -> None:
        """Refuse a head that was not fitted with a bundle's catalogue and forecasts.

        Raises:
            ArtefactError: The head belongs to another catalogue, forecast length, or an engine
                whose forecasts differ.
        """
        fitted = self._metadata
        if fitted["catalogue_fingerprint"] not in manifest.catalogue_lineage:
            raise ArtefactError(
                f"{self._path}: fitted with catalogue {fitted['catalogue_fingerprint']}, "
                f"the bundle's is {manifest.catalogue_fingerprint}; {_REMEDY}"
            )
        forecast_k, engine = str(manifest.forecast_k), manifest.engine
        for key, value, is_right in (
            ("forecast_k", forecast_k, fitted["forecast_k"] == forecast_k),
            ("engine", engine, forecast_alike(fitted["engine"], engine)),
        ):
            if not is_right:
                raise ArtefactError(
                    f"{self._path}: fitted with {key} {fitted[key]}, the bundle's is {value}; "
                    f"{_REMEDY}"
                )

    def adjust(self, base_logits: npt.NDArray[np.float32], priors: CandidatePriors) -> Adjusted:
        """Return z' = z + clip(g(x), -clamp, clamp), and z itself where there is no prior.

        Each candidate's result is independent of the others.

        Args:
            base_logits: [n], finite.
            priors: The priors of the same n candidates.
        """
        if len(base_logits) == 0:
            return Adjusted(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))
        inputs = {
            BASE_LOGITS: base_logits,
            FEATURES: priors.features,
            STATUSES: priors.statuses,
            HAS_FORECAST: np.array([priors.has_forecast]),
        }
        feed = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        return Adjusted(*self._session.run(OUTPUT_NAMES, feed))


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    if missing := [key for key in METADATA_KEYS if key not in metadata]:
        raise ArtefactError(f"{path}: the head's metadata lack {', '.join(missing)}")
    try:
        names = tuple(json.loads(metadata["feature_names"]))
        clamp = float(metadata["clamp"])
    except (ValueError, TypeError) as error:
        raise ArtefactError(f"{path}: the head's metadata are malformed: {error}") from error
    if names != FEATURE_NAMES:
        raise ArtefactError(
            f"{path}: fitted with features {list(names)}, this adprior makes {list(FEATURE_NAMES)}"
        )
    if not 0.0 < clamp < float("inf"):
        raise ArtefactError(f"{path}: clamp {metadata['clamp']}, expected a positive number")
