"""Hugging Face directories: ``config.json`` and safetensors, in one file or in shards.

The format of safetensors is a length, a JSON header with every tensor's place, and the tensors. It
is read here because the package has no NumPy type for bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_runtime.errors import InvalidInputError

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LENGTH_BYTES: Final = 8


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        InvalidInputError: The file is missing or holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}; expected {expected}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path}: not {expected}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path}: holds {type(document).__name__}; expected {expected}")
    return document


def read_config(directory: Path) -> dict[str, Any]:
    """Return the configuration of a causal language model.

    Raises:
        InvalidInputError: It is missing, or of a model that is quantised or reads images.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise InvalidInputError(f"{directory}: not a Hugging Face checkpoint (no {CONFIG_FILE})")
    config = read_json(path, "a model's configuration")
    if not isinstance(config.get("model_type"), str):
        raise InvalidInputError(f"{path}: names no model_type")
    if "text_config" in config:
        raise InvalidInputError(
            f"{path}: a model of several parts (text_config); expected a language model alone"
        )
    if config.get("quantization_config") is not None:
        raise InvalidInputError(
            f"{path}: its weights are quantised (quantization_config); expected float32, float16 "
            "or bfloat16, or a GGUF file"
        )
    return config


def read_weights(directory: Path) -> Mapping[str, NDArray[np.float32]]:
    """Return a directory's weights, which stay on disk.

    Raises:
        InvalidInputError: Weights or shards are missing, pickled or damaged.
    """
    if (index := directory / INDEX_FILE).is_file():
        places = read_json(index, "an index of shards").get("weight_map")
        if not isinstance(places, dict):
            raise InvalidInputError(f"{index}: not an index of shards (no weight_map)")
        shards = {}
        for name in sorted({str(place) for place in places.values()}):
            if Path(name).name != name or not (directory / name).is_file():
                raise InvalidInputError(f"{index}: names the shard {name!r}, which is not there")
            shards[name] = SafetensorsFile(directory / name)
        for tensor, place in places.items():
            if tensor not in shards[str(place)]:
                raise InvalidInputError(f"{index}: tensor {tensor} is not in its shard {place}")
        return _Sharded({tensor: shards[str(place)] for tensor, place in places.items()})
    if (path := directory / WEIGHTS_FILE).is_file():
        return SafetensorsFile(path)
    if shards_alone := sorted(path.name for path in directory.glob("*.safetensors")):
        raise InvalidInputError(
            f"{directory}: {shards_alone[0]} without {INDEX_FILE}; expected {WEIGHTS_FILE}, or "
            "shards with their index"
        )
    raise InvalidInputError(f"{directory}: no .safetensors file; pickled weights are not read")


@dataclass(frozen=True, slots=True)
class _Place:
    """Type, shape and offset in bytes of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile(Mapping[str, NDArray[np.float32]]):
    """The tensors of one file in float32, read one at a time.

    Args:
        path: The file.

    Raises:
        InvalidInputError: It is missing, damaged or truncated, or holds a type other than
            float64, float32, float16 and bfloat16.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                size = path.stat().st_size
                if length > size - _LENGTH_BYTES:
                    raise InvalidInputError(f"{path}: truncated, or not a safetensors file")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            self._places = {
                name: _Place(
                    entry["dtype"],
                    tuple(entry["shape"]),
                    entry["data_offsets"][0] + _LENGTH_BYTES + length,
                )
                for name, entry in header.items()
            }
        except OSError as error:
            raise InvalidInputError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise InvalidInputError(f"{path}: not a safetensors file: {error!r}") from error
        for name, place in self._places.items():
            if place.dtype not in _TYPES:
                raise InvalidInputError(
                    f"{path}: tensor {name} has the type {place.dtype}; expected one of "
                    f"{', '.join(_TYPES)}"
                )
            end = place.offset + prod(place.shape) * np.dtype(_TYPES[place.dtype]).itemsize
            if end > size:
                raise InvalidInputError(
                    f"{path}: truncated: tensor {name} ends at byte {end}, the file at byte {size}"
                )

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return one tensor."""
        place = self._places[name]
        raw = np.fromfile(
            self._path, _TYPES[place.dtype], prod(place.shape), offset=place.offset
        ).reshape(place.shape)
        if place.dtype == "BF16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._places)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._places)


class _Sharded(Mapping[str, NDArray[np.float32]]):
    """Tensors by name, each in its file."""

    def __init__(self, files: Mapping[str, SafetensorsFile]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
