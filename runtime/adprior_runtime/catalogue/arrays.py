"""Tables of flat arrays. Each array is one ``.npy`` file; processes share it as mapped memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import ArtefactError


def save_arrays(directory: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write each array as one file into an existing directory."""
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)


def load_arrays(directory: Path, names: Sequence[str], what: str) -> dict[str, npt.NDArray[Any]]:
    """Map arrays of one dimension into memory.

    Args:
        directory: The directory of the files.
        names: The names of the arrays.
        what: The table's name in an error.

    Raises:
        ArtefactError: A file is missing or empty, or contains something else.
    """
    arrays = {}
    for name in names:
        path = directory / f"{name}.npy"
        try:
            # asarray: the same mapped memory without the subclass, whose every slice costs more.
            arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise ArtefactError(f"{directory}: not {what}: {path.name}: {error}") from error
        if arrays[name].ndim != 1:
            found = arrays[name].shape
            raise ArtefactError(f"{directory}: not {what}: {path.name} has the shape {found}")
    return arrays
