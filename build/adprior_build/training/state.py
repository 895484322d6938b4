"""The state that a killed training resumes from, in a directory that always holds a complete one.

::

    OUTPUT.partial/
      training.lock              locked by the process that trains
      state.json                 the training's identity, its position, its files and their hashes
      training-7.safetensors     weights, moments, random generators
      best-5.safetensors         weights of the best epoch so far
      lower_states.*             see `adprior_build.training.lower_states`

Tensors are written under new names first, then `state.json` is renamed into place, then files that
it no longer names are removed. So a kill or a full disk leaves either the old or the new state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adprior_build.training.lower_states import LOWER_INDEX
from adprior_runtime.bundle import hash_file
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

_LOCK: Final = "training.lock"
_STATE: Final = "state.json"
_FORMAT: Final = 2
_DAMAGE: Final = (
    ArtefactError, AttributeError, KeyError, OSError, SafetensorError, TypeError, ValueError,
)  # fmt: skip
_RESTART_HINT: Final = "give --restart to train from the beginning"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptState:
    """A state that was kept.

    Attributes:
        position: The fields of a `Position`.
        tensors: Weights, moments and random generators.
        best: The best epoch's weights; empty before the end of the first epoch.
    """

    position: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]


class StateKeeper:
    """Reads and writes the state of one training.

    Attributes:
        directory: Where the state is kept.
        minutes: Time between two saves within an epoch.
    """

    def __init__(self, directory: Path, minutes: float) -> None:
        self.directory = directory
        self.minutes = minutes
        self._identity: Mapping[str, Any] = {}
        self._files: dict[str, dict[str, str]] = {}
        self._best: Any = None
        self._writes = 0

    @property
    def is_empty(self) -> bool:
        """Whether no state is kept."""
        return not (self.directory / _STATE).exists()

    def begin(self, identity: Mapping[str, Any]) -> KeptState | None:
        """Return the state to resume from, None if none is kept.

        Args:
            identity: Settings and input hashes, as JSON; a state with another one is refused.

        Raises:
            InvalidInputError: The state belongs to another training or version, or is damaged.
        """
        self._identity = json.loads(to_json(identity))
        if self.is_empty:
            self._remove_unnamed({})
            return None
        try:
            document = json.loads((self.directory / _STATE).read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise InvalidInputError(
                    f"{self.directory}: the training's state was written by another version of "
                    f"adprior (format {document['format']}, expected {_FORMAT}); {_RESTART_HINT}"
                )
            self._require_same(document["identity"])
            self._files, self._best = document["files"], document["best"]
            self._writes = document["writes"]
            loaded = {kind: self._load(file) for kind, file in self._files.items()}
            return KeptState(
                position=document["position"],
                tensors=loaded["training"],
                best=loaded.get("best", {}),
            )
        except _DAMAGE as error:
            problem = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise InvalidInputError(
                f"{self.directory}: the training's state is damaged ({problem}); {_RESTART_HINT}"
            ) from error

    def save(
        self,
        position: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        best: Mapping[str, torch.Tensor],
        best_epoch: int | None,
    ) -> None:
        """Replace the kept state.

        Args:
            position: The fields of a `Position`.
            tensors: Weights, moments and random generators.
            best: The best epoch's weights; written only if ``best_epoch`` changed.
            best_epoch: None before the end of the first epoch.

        Raises:
            InvalidInputError: The state cannot be written; the previous state is kept.
        """
        files = dict(self._files)
        self._writes += 1
        try:
            files["training"] = self._store("training", tensors)
            if best_epoch is not None and best_epoch != self._best:
                files["best"] = self._store("best", best)
            document = {
                "format": _FORMAT,
                "identity": self._identity,
                "position": position,
                "best": best_epoch,
                "writes": self._writes,
                "files": files,
            }
            with replace_file(self.directory / _STATE) as fresh:
                fresh.write_text(to_json(document, indent=2) + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            self._remove_unnamed(self._files)
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            kept = "nothing was saved before" if self.is_empty else "the previous state is kept"
            raise InvalidInputError(
                f"{self.directory}: the training's state cannot be written: {reason}; {kept}; "
                "make room and run the same command again"
            ) from error
        self._files, self._best = files, best_epoch
        self._remove_unnamed(files)

    def _require_same(self, identity: Mapping[str, Any]) -> None:
        names = {*identity, *self._identity}
        # Settings come first: the hashes of the windows only follow from them.
        for name in sorted(names, key=lambda name: ("windows" in name, name)):
            found, expected = identity.get(name), self._identity.get(name)
            if found != expected:
                short = all(len(str(value)) <= 32 for value in (found, expected))
                what = f"{name} was {found}, is {expected}" if short else f"{name} changed"
                raise InvalidInputError(
                    f"{self.directory}: holds the state of another training ({what}); "
                    f"run that training's command again, or {_RESTART_HINT}"
                )

    def _store(self, kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
        path = self.directory / f"{kind}-{self._writes}.safetensors"
        save_file(dict(tensors), path)
        return {"name": path.name, "sha256": hash_file(path)}

    def _load(self, file: Mapping[str, str]) -> Mapping[str, torch.Tensor]:
        path = self.directory / file["name"]
        if hash_file(path) != file["sha256"]:
            raise ValueError(f"{path.name} is not what was written")
        loaded: Mapping[str, torch.Tensor] = load_file(path)
        return loaded

    def _remove_unnamed(self, files: Mapping[str, Mapping[str, str]]) -> None:
        named = {file["name"] for file in files.values()}
        for path in self.directory.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)


@contextmanager
def kept_state(directory: Path, *, minutes: float, restart: bool) -> Iterator[StateKeeper]:
    """Yield a keeper; remove the directory on success, or if nothing was kept.

    Args:
        directory: Holds an earlier training's state, or is created.
        minutes: Time between two saves within an epoch.
        restart: Discard a kept state.

    Raises:
        InvalidInputError: The directory holds something else, or another process trains there.
    """
    if directory.exists() and not directory.is_dir():
        raise InvalidInputError(f"{directory}: is a file, expected a directory or nothing")
    if directory.exists() and not (directory / _LOCK).is_file() and any(directory.iterdir()):
        raise InvalidInputError(
            f"{directory}: exists and holds no training's state (no {_LOCK}); choose another --work"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        if restart:
            for name in (_STATE, LOWER_INDEX):
                (directory / name).unlink(missing_ok=True)
        keeper = StateKeeper(directory, minutes)
        try:
            yield keeper
        except BaseException:
            if keeper.is_empty and not (directory / LOWER_INDEX).exists():
                shutil.rmtree(directory, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock; the system releases it when a process is killed."""
    with (directory / _LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InvalidInputError(
                f"{directory}: another training uses this directory (process {lock.read().strip()})"
            ) from error
        except OSError:
            pass  # a file system without locks
        with contextlib.suppress(OSError):  # on a full disk, train without the process id
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), f"{os.getpid()}\n".encode())
        yield
