"""What ``--from`` and ``--checkpoint`` may be, and what is read of it, without torch.

| source | recognised by |
| --- | --- |
| a package's model | its name, see `packaged_base` |
| a GGUF file | it is a file |
| an adapter | a directory with ``base.json`` |
| a Hugging Face checkpoint | any other directory |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_build.checkpoints.adapter import (
    ADAPTER_CONFIG,
    BASE_FILE,
    VOCABULARY_FILE,
    Base,
    JoinedWeights,
)
from adprior_build.checkpoints.hugging_face import (
    CONFIG_FILE,
    INDEX_FILE,
    read_config,
    read_weights,
)
from adprior_build.checkpoints.packaged_base import PACKAGES, package_of, packaged_base
from adprior_build.checkpoints.trimming import TrimmedVocabulary, TrimmedWeights
from adprior_runtime.bundle import hash_file
from adprior_runtime.errors import InvalidInputError

_EMBEDDINGS: Final = "model.embed_tokens.weight"
_OUTPUT: Final = "lm_head.weight"
_HASHED: Final = (CONFIG_FILE, INDEX_FILE, ADAPTER_CONFIG, BASE_FILE, VOCABULARY_FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A causal language model that stays on disk.

    Attributes:
        config: The content of a Hugging Face ``config.json``.
        weights: float32 arrays under Hugging Face's names, read one at a time; without
            ``lm_head.weight`` if it is tied to the embeddings.
    """

    config: dict[str, Any]
    weights: Mapping[str, NDArray[np.float32]]

    def trim(self, vocabulary: TrimmedVocabulary) -> Checkpoint:
        """Return the model with fewer tokens."""
        return Checkpoint(
            config=vocabulary.trim_config(self.config),
            weights=TrimmedWeights(self.weights, vocabulary.kept),
        )


def find_source(path: Path) -> Path:
    """Return the file or directory that a command's option stands for.

    Args:
        path: A path, or a package's name, whose model is then assembled.

    Raises:
        InvalidInputError: There is no such file or package.
    """
    if path.exists():
        return path
    if (package := package_of(str(path))) is not None:
        return packaged_base(package)
    raise InvalidInputError(
        f"{path}: not found; expected a Hugging Face directory, a .gguf file, an adapter's "
        f"directory or a package ({', '.join(name.replace('_', '-') for name in PACKAGES)})"
    )


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a Hugging Face directory, a GGUF file or an adapter.

    Raises:
        InvalidInputError: It is of another kind, or damaged; the message names the file.
    """
    if path.is_file():
        return _open_gguf(path)
    if (path / BASE_FILE).is_file():
        uncorrected, _ = open_uncorrected(path)
        return Checkpoint(
            config=uncorrected.config, weights=JoinedWeights(uncorrected.weights, path)
        )
    config, weights = read_config(path), read_weights(path)
    if _EMBEDDINGS not in weights:
        raise InvalidInputError(
            f"{path}: no tensor {_EMBEDDINGS}; expected a causal language model"
        )
    is_tied = bool(config.get("tie_word_embeddings", _OUTPUT not in weights))
    if not is_tied and _OUTPUT not in weights:
        raise InvalidInputError(f"{path}: no tensor {_OUTPUT}, and tie_word_embeddings is false")
    return Checkpoint(
        config=config | {"tie_word_embeddings": is_tied},
        weights=_WithoutOutput(weights) if is_tied else weights,
    )


def open_uncorrected(adapter: Path) -> tuple[Checkpoint, NDArray[np.int32] | None]:
    """Open an adapter's base with the adapter's vocabulary, without its corrections.

    Returns:
        The model, and the base's id of each token; None for the base's own vocabulary.

    Raises:
        InvalidInputError: A file is missing or damaged.
    """
    base, config = open_checkpoint(find_base(adapter)), read_config(adapter)
    weights, vocabulary = base.weights, None
    if (file := adapter / VOCABULARY_FILE).is_file():
        vocabulary = _read_vocabulary(file)
        weights = TrimmedWeights(weights, vocabulary)
    elif (size := config.get("vocab_size")) != (whole := base.config.get("vocab_size")):
        raise InvalidInputError(
            f"{adapter}: no {VOCABULARY_FILE}: its vocabulary has {size} tokens, its base's {whole}"
        )
    if not config.get("tie_word_embeddings", True):
        weights = _WithOutput(weights)
    return Checkpoint(config=config, weights=weights), vocabulary


def hash_checkpoint(path: Path) -> str:
    """Return the SHA-256 of a file, or of a directory's configuration, weights and base."""
    if path.is_file():
        return hash_file(path)
    total = hashlib.sha256()
    names = [name for name in _HASHED if (path / name).is_file()]
    for file in [*(path / name for name in names), *sorted(path.glob("*.safetensors"))]:
        total.update(f"{file.name} {hash_file(file)}\n".encode())
    return total.hexdigest()


def describe_base(path: Path, adapter: Path) -> Base:
    """Return how an adapter names its base.

    Args:
        path: The base.
        adapter: The adapter's directory, at its final place.
    """
    sha256 = hash_checkpoint(path)
    packages = [name for name, known in PACKAGES.items() if known == sha256]
    if packages:
        return Base(file=path.name, sha256=sha256, package=packages[0])
    return Base(file=os.path.relpath(path.resolve(), adapter.resolve()), sha256=sha256)


def find_base(adapter: Path) -> Path:
    """Return an adapter's base, whose hash is right.

    Raises:
        InvalidInputError: It is missing, or has another hash.
    """
    base = Base.load(adapter / BASE_FILE)
    path = adapter / base.file
    if not path.exists():
        if base.package is None:
            raise InvalidInputError(
                f"{adapter / BASE_FILE}: its base {base.file} is not there (from {adapter})"
            )
        path = packaged_base(base.package)
    if (found := hash_checkpoint(path)) != base.sha256:
        raise InvalidInputError(
            f"{path}: SHA-256 {found}, expected {base.sha256}, the base of {adapter}"
        )
    return path


def _open_gguf(path: Path) -> Checkpoint:
    try:
        from adprior_build.checkpoints import gguf_file, gguf_model  # noqa: PLC0415  gguf
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"{path}: GGUF files need the package {error.name}: pip install 'adprior[gemma]'"
        ) from error
    file = gguf_file.GgufFile(path)
    return Checkpoint(config=gguf_model.gguf_config(file), weights=gguf_model.GgufWeights(file))


def _read_vocabulary(path: Path) -> NDArray[np.int32]:
    try:
        kept = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: not a vocabulary: {error}") from error
    if kept.ndim != 1 or kept.dtype != np.int32:
        raise InvalidInputError(f"{path}: {kept.dtype} {kept.shape}; expected int32 [tokens]")
    return np.asarray(kept, dtype=np.int32)


class _WithOutput(Mapping[str, NDArray[np.float32]]):
    """Weights with an output layer, which an adapter may correct apart from the embeddings."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._weights = weights
        self._names = list(dict.fromkeys([*weights, _OUTPUT]))

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name == _OUTPUT and name not in self._weights:
            return self._weights[_EMBEDDINGS]
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _WithoutOutput(Mapping[str, NDArray[np.float32]]):
    """Weights without an output layer that repeats the embeddings."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._weights = weights
        self._names = [name for name in weights if name != _OUTPUT]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name == _OUTPUT:
            raise KeyError(name)
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
