"""Reads a flat TOML file of settings into a dataclass."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from adprior_runtime.errors import InvalidInputError

_Settings = TypeVar("_Settings")


def load_settings(path: Path, kind: type[_Settings], name: str) -> _Settings:
    """Read a file whose keys are the fields of a dataclass.

    Args:
        path: The file.
        kind: The dataclass.
        name: The kind of file, for messages, such as "a deployment".

    Raises:
        InvalidInputError: The file is not TOML, has unknown keys or lacks one, or the dataclass
            refuses a value.
    """
    known: list[Any] = list(fields(kind))  # type: ignore[arg-type]
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: not {name}: {error}") from error
    names = [item.name for item in known]
    if unknown := sorted(set(document) - set(names)):
        raise InvalidInputError(
            f"{path}: unknown {', '.join(unknown)}; expected {', '.join(names)}"
        )
    needed = [item.name for item in known if item.default is MISSING]
    if missing := [key for key in needed if key not in document]:
        raise InvalidInputError(f"{path}: {', '.join(missing)} missing")
    try:
        return kind(**document)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error
