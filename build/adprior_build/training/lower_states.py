"""The lower layers' output for every window, computed at its first use and kept in a file.

::

    OUTPUT.partial/
      lower_states.bin     for each token: float32 scale, float16 [hidden]
      lower_states.json    what it belongs to, and the hash of each window that it holds

A scale for each token lets float16 hold states beyond 65,504, which Gemma has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from adprior_build.training.windows import Window
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

_STATES: Final = "lower_states.bin"
LOWER_INDEX: Final = "lower_states.json"
"""The file without which an earlier run's states do not count."""
_SAVE_EVERY_S: Final = 30.0
_SMALLEST_SCALE: Final = 1e-30

RunLower = Callable[[torch.Tensor], torch.Tensor]
"""Takes int64 [sequences, longest]; returns float [sequences, longest, hidden]."""


class LowerStates:
    """Gives the states of windows.

    A window's states are always read from the file, also when they were just computed. So a
    training that resumes reads the same numbers.

    Args:
        directory: Where the file is, or will be.
        windows: All windows that will be asked for. Equal ones share their states.
        run: The lower layers.
        hidden: The model's width.
        device: Where ``run`` computes.
    """

    def __init__(
        self,
        directory: Path,
        windows: Sequence[Window],
        run: RunLower,
        *,
        hidden: int,
        device: str = "cpu",
    ) -> None:
        self._directory, self._run, self._device = directory, run, device
        self._record = np.dtype([("scale", "<f4"), ("values", "<f2", (hidden,))])
        self._places: dict[bytes, int] = {}
        self.tokens = 0
        for window in windows:
            if _key(window) not in self._places:
                self._places[_key(window)] = self.tokens
                self.tokens += len(window.token_ids)
        self._hashes: dict[str, str] = {}
        self._identity = ""
        self._saved_at = time.monotonic()
        self._kept: Any = None

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.tokens * self._record.itemsize

    def open(self, identity: str) -> None:
        """Make the file, or take over an earlier run's states; damaged ones do not count.

        Args:
            identity: Names the model and the windows; the states of another one do not count.

        Raises:
            InvalidInputError: The disk has no room.
        """
        self._make_room()
        self._kept = np.memmap(self._directory / _STATES, self._record, "r+", shape=self.tokens)
        self._identity, self._hashes = identity, {}
        try:
            index = json.loads((self._directory / LOWER_INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if index.get("identity") == identity:
            lengths = {place: len(key) // 4 for key, place in self._places.items()}
            for place, expected in index["windows"].items():
                if self._hash(int(place), lengths[int(place)]) == expected:
                    self._hashes[place] = expected

    def of(self, windows: Sequence[Window]) -> torch.Tensor:
        """Return the states of windows, padded: float32 [windows, longest, hidden].

        Raises:
            InvalidInputError: New states cannot be written.
        """
        self._compute([window for window in windows if self._place(window) not in self._hashes])
        longest = max(len(window.token_ids) for window in windows)
        width = self._record["values"].shape[0]
        states = np.zeros((len(windows), longest, width), dtype=np.float32)
        for row, window in enumerate(windows):
            place, tokens = self._places[_key(window)], len(window.token_ids)
            kept = self._kept[place : place + tokens]
            np.multiply(kept["values"], kept["scale"][:, None], out=states[row, :tokens])
        return torch.from_numpy(states).to(self._device)

    def _compute(self, missing: Sequence[Window]) -> None:
        if not missing:
            return
        ids = np.zeros((len(missing), max(len(w.token_ids) for w in missing)), np.int64)
        for row, window in enumerate(missing):
            ids[row, : len(window.token_ids)] = window.token_ids
        found = self._run(torch.from_numpy(ids).to(self._device)).float().cpu().numpy()
        for window, states in zip(missing, found, strict=True):
            place, tokens = self._places[_key(window)], len(window.token_ids)
            self._write(place, states[:tokens])
            self._hashes[str(place)] = self._hash(place, tokens)
        if time.monotonic() > self._saved_at + _SAVE_EVERY_S:
            self._save()

    def _make_room(self) -> None:
        path = self._directory / _STATES
        had = path.stat().st_size if path.exists() else 0
        free = shutil.disk_usage(self._directory).free + had
        try:
            if free < self.size_bytes:
                raise OSError(0, f"{free / 1e9:.1f} GB are free")
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self.size_bytes)
                file.truncate(self.size_bytes)
        except OSError as error:
            raise InvalidInputError(
                f"{path}: the lower layers' output needs {self.size_bytes / 1e9:.1f} GB: "
                f"{error.strerror}; make room, give another --work, or train without --upper-layers"
            ) from error

    def _write(self, place: int, states: NDArray[np.float32]) -> None:
        scale = np.maximum(np.abs(states).max(axis=-1), _SMALLEST_SCALE).astype(np.float32)
        rows = self._kept[place : place + len(states)]
        rows["scale"] = scale
        rows["values"] = states / scale[:, None]

    def _save(self) -> None:
        document = {"identity": self._identity, "windows": self._hashes}
        try:
            self._kept.flush()
            with replace_file(self._directory / LOWER_INDEX) as fresh:
                fresh.write_text(to_json(document), encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(
                f"{self._directory}: the lower layers' output cannot be kept: {error.strerror}; "
                "make room and run the same command again"
            ) from error
        self._saved_at = time.monotonic()

    def _place(self, window: Window) -> str:
        return str(self._places[_key(window)])

    def _hash(self, place: int, tokens: int) -> str:
        return hashlib.sha256(self._kept[place : place + tokens].tobytes()).hexdigest()


def _key(window: Window) -> bytes:
    return window.token_ids.tobytes()
