"""Adapters: a base model's trimmed vocabulary and low-rank corrections, joined with NumPy.

The directory holds PEFT's ``adapter_model.safetensors`` and ``adapter_config.json``, the base's
name and hash in ``base.json``, and the ids of the kept tokens in ``vocabulary.npy``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_build.checkpoints.hugging_face import SafetensorsFile, read_json
from adprior_build.checkpoints.packaged_base import PACKAGES
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

BASE_FILE: Final = "base.json"
VOCABULARY_FILE: Final = "vocabulary.npy"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"

_PREFIX: Final = "base_model.model."
_A, _B, _WEIGHT = ".lora_A.weight", ".lora_B.weight", ".weight"
_REFUSED: Final = ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "lora_bias")
"""Settings of PEFT that change how corrections are added; none of them is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The settings of low-rank corrections.

    Attributes:
        rank: Rank of the corrections.
        alpha: Their scale is alpha / rank, or alpha / sqrt(rank) with ``rslora``.
        target_modules: Names of the corrected layers.
        rslora: Whether they are rank-stabilised (arXiv 2312.03732).
    """

    rank: int
    alpha: float
    target_modules: Sequence[str]
    rslora: bool = False

    @property
    def scale(self) -> float:
        """The factor of every correction."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @classmethod
    def load(cls, path: Path) -> Lora:
        """Read PEFT's ``adapter_config.json``.

        Raises:
            InvalidInputError: It is missing, or asks for more than plain corrections.
        """
        config = read_json(path, "PEFT's configuration of an adapter")
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
            raise InvalidInputError(
                f"{path}: peft_type {config.get('peft_type')}, bias {config.get('bias')}; "
                "expected LORA without biases"
            )
        if asked := [name for name in _REFUSED if config.get(name)]:
            raise InvalidInputError(f"{path}: {asked[0]} is set; expected plain LoRA")
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
            raise InvalidInputError(f"{path}: r {rank} and lora_alpha {alpha}; expected numbers")
        return cls(
            rank=rank,
            alpha=alpha,
            target_modules=config.get("target_modules") or (),
            rslora=bool(config.get("use_rslora")),
        )


class JoinedWeights(Mapping[str, NDArray[np.float32]]):
    """A base's weights with an adapter's corrections: W + scale * B A (arXiv 2106.09685).

    A tensor that the adapter holds whole takes the place of the base's.

    Args:
        base: The base's weights, already with the adapter's vocabulary.
        directory: The adapter.

    Raises:
        InvalidInputError: A file is missing or damaged, or a correction has no weight to correct.
    """

    def __init__(self, base: Mapping[str, NDArray[np.float32]], directory: Path) -> None:
        self._base = base
        self._path = directory / ADAPTER_WEIGHTS
        self._scale = Lora.load(directory / ADAPTER_CONFIG).scale
        self._tensors = SafetensorsFile(self._path)
        self._corrected: set[str] = set()
        self._whole: set[str] = set()
        for key in self._tensors:
            name = key.removeprefix(_PREFIX)
            is_half = name.endswith((_A, _B))
            target = name.removesuffix(_A).removesuffix(_B) + _WEIGHT if is_half else name
            pair = {_PREFIX + target.removesuffix(_WEIGHT) + half for half in (_A, _B)}
            if target not in base or name == key or (is_half and not pair <= set(self._tensors)):
                raise InvalidInputError(
                    f"{self._path}: tensor {key} corrects no weight of the base"
                )
            (self._corrected if is_half else self._whole).add(target)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return one weight, corrected."""
        weight = self._tensors[_PREFIX + name] if name in self._whole else self._base[name]
        if name in self._corrected:
            stem = _PREFIX + name.removesuffix(_WEIGHT)
            first, second = self._tensors[stem + _A], self._tensors[stem + _B]
            found = (*second.shape[:1], *first.shape[1:])
            if weight.shape != found or second.shape[1:] != first.shape[:1]:
                raise InvalidInputError(
                    f"{self._path}: the correction of {name} has the shape {found}, the base's "
                    f"weight {weight.shape}"
                )
            return weight + np.float32(self._scale) * (second @ first)
        return weight

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._base)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self._base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base of an adapter.

    Attributes:
        file: Its path, from the adapter's directory.
        sha256: Its hash, see `checkpoint.hash_checkpoint`.
        package: The package that it comes from, if there is one.
    """

    file: str
    sha256: str
    package: str | None = None

    @classmethod
    def load(cls, path: Path) -> Base:
        """Read ``base.json``.

        Raises:
            InvalidInputError: It is missing, or names no file, no hash or an unknown package.
        """
        document = read_json(path, "an adapter's base")
        file, sha256 = document.get("file"), document.get("sha256")
        package = document.get("package")
        if not isinstance(file, str) or not isinstance(sha256, str):
            raise InvalidInputError(f"{path}: expected the base's file and sha256")
        if package is not None and package not in PACKAGES:
            raise InvalidInputError(
                f"{path}: the unknown package {package!r}; known: {', '.join(PACKAGES)}"
            )
        return cls(file=file, sha256=sha256, package=package)


def write_adapter(
    directory: Path,
    tensors: Mapping[str, NDArray[np.floating[Any]]],
    lora: Lora,
    base: Base,
    vocabulary: NDArray[np.int32] | None = None,
) -> None:
    """Write an adapter's weights in float16, its settings, its base and its vocabulary.

    The caller writes configuration, tokenizer, template and record, and replaces the whole
    directory at once.

    Args:
        directory: A directory.
        tensors: Arrays under PEFT's names.
        lora: The corrections' settings.
        base: The base that they belong to.
        vocabulary: int32, the base's id of each token; None for the base's vocabulary.

    Raises:
        InvalidInputError: A weight is too large for float16.
    """
    from safetensors.numpy import save  # noqa: PLC0415  assembling an adapter does without it

    halves = {}
    for name, values in tensors.items():
        with np.errstate(over="ignore"):
            halves[name] = np.ascontiguousarray(values, dtype=np.float16)
        if not np.isfinite(halves[name]).all():
            raise InvalidInputError(f"{directory}: {name} has values that float16 cannot hold")
    (directory / ADAPTER_WEIGHTS).write_bytes(save(halves, metadata={"format": "pt"}))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": os.path.basename(base.file),  # noqa: PTH119  a text
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rslora,
        "target_modules": sorted(lora.target_modules),
        "bias": "none",
    }
    record = {"file": base.file, "sha256": base.sha256}
    if base.package is not None:
        record["package"] = base.package
    for name, document in ((ADAPTER_CONFIG, settings), (BASE_FILE, record)):
        (directory / name).write_text(to_json(document, indent=2) + "\n", encoding="utf-8")
    if vocabulary is not None:
        np.save(directory / VOCABULARY_FILE, vocabulary.astype(np.int32))
