"""The lower layers' output for every window, computed once and kept in a file.

::

    OUTPUT.partial/
      lower_states.bin     for each token: float32 scale, float16 [hidden]
      lower_states.json    what it belongs to, and the hash of each finished batch

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

from adprior_build.training.batches import cut_into_batches
from adprior_build.training.windows import Window
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.terminal.progress import progress_bar
from adprior_runtime.text.json_text import to_json

_STATES: Final = "lower_states.bin"
LOWER_INDEX: Final = "lower_states.json"
"""The file without which an earlier run's states do not count."""
_SAVE_EVERY_S: Final = 10.0
_SMALLEST_SCALE: Final = 1e-30

RunLower = Callable[[torch.Tensor], torch.Tensor]
"""Takes int64 [sequences, longest]; returns float [sequences, longest, hidden]."""


class LowerStates:
    """Gives the kept states of windows.

    Args:
        directory: Where the file is, or will be.
        windows: All windows that are asked for. Equal ones share their states.
        hidden: The model's width.
        batch_size: Windows that run through the lower layers together.
    """

    def __init__(
        self, directory: Path, windows: Sequence[Window], *, hidden: int, batch_size: int
    ) -> None:
        self._directory = directory
        self._record = np.dtype([("scale", "<f4"), ("values", "<f2", (hidden,))])
        distinct = {_key(window): window for window in windows}
        by_length = sorted(distinct.values(), key=lambda window: len(window.token_ids))
        self._batches = cut_into_batches(by_length, batch_size)
        self._places: dict[bytes, int] = {}
        self.tokens = 0
        for window in (window for batch in self._batches for window in batch):
            self._places[_key(window)] = self.tokens
            self.tokens += len(window.token_ids)
        self._kept: Any = None

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.tokens * self._record.itemsize

    def fill(self, run: RunLower, identity: str, *, device: str = "cpu") -> None:
        """Compute what an earlier run left to do.

        Args:
            run: The lower layers.
            identity: Names the model and the windows; the states of another one are replaced.
            device: Where ``run`` computes.

        Raises:
            InvalidInputError: The disk has no room.
        """
        self._make_room()
        self._kept = np.memmap(self._directory / _STATES, self._record, "r+", shape=self.tokens)
        hashes = self._finished(identity)
        place = sum(len(w.token_ids) for batch in self._batches[: len(hashes)] for w in batch)
        saved_at = time.monotonic()
        with progress_bar(total=self.tokens, desc="lower layers", unit="token") as bar:
            bar.update(place)
            for batch in self._batches[len(hashes) :]:
                first = place
                for window, states in zip(batch, _run_batch(run, batch, device), strict=True):
                    self._write(place, states[: len(window.token_ids)])
                    place += len(window.token_ids)
                hashes.append(self._hash(first, place))
                bar.update(place - first)
                if time.monotonic() > saved_at + _SAVE_EVERY_S or place == self.tokens:
                    self._save(identity, hashes)
                    saved_at = time.monotonic()

    def of(self, windows: Sequence[Window], device: str = "cpu") -> torch.Tensor:
        """Return the states of windows, padded: float32 [windows, longest, hidden]."""
        longest = max(len(window.token_ids) for window in windows)
        width = self._record["values"].shape[0]
        states = np.zeros((len(windows), longest, width), dtype=np.float32)
        for row, window in enumerate(windows):
            place, tokens = self._places[_key(window)], len(window.token_ids)
            kept = self._kept[place : place + tokens]
            np.multiply(kept["values"], kept["scale"][:, None], out=states[row, :tokens])
        return torch.from_numpy(states).to(device)

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

    def _finished(self, identity: str) -> list[str]:
        """Return the hashes of the batches that are kept, up to the first that is damaged."""
        try:
            index = json.loads((self._directory / LOWER_INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        found: list[str] = []
        place = 0
        if index.get("identity") == identity:
            for batch, expected in zip(self._batches, index["batches"], strict=False):
                end = place + sum(len(window.token_ids) for window in batch)
                if self._hash(place, end) != expected:
                    break
                found.append(expected)
                place = end
        return found

    def _write(self, place: int, states: NDArray[np.float32]) -> None:
        scale = np.maximum(np.abs(states).max(axis=-1), _SMALLEST_SCALE).astype(np.float32)
        rows = self._kept[place : place + len(states)]
        rows["scale"] = scale
        rows["values"] = states / scale[:, None]

    def _hash(self, start: int, stop: int) -> str:
        return hashlib.sha256(self._kept[start:stop].tobytes()).hexdigest()

    def _save(self, identity: str, hashes: Sequence[str]) -> None:
        self._kept.flush()
        with replace_file(self._directory / LOWER_INDEX) as fresh:
            fresh.write_text(to_json({"identity": identity, "batches": hashes}), encoding="utf-8")


def _run_batch(run: RunLower, batch: Sequence[Window], device: str) -> NDArray[np.float32]:
    ids = np.zeros((len(batch), max(len(window.token_ids) for window in batch)), np.int64)
    for row, window in enumerate(batch):
        ids[row, : len(window.token_ids)] = window.token_ids
    with torch.no_grad():
        found: NDArray[np.float32] = run(torch.from_numpy(ids).to(device)).float().cpu().numpy()
    return found


def _key(window: Window) -> bytes:
    return window.token_ids.tobytes()
