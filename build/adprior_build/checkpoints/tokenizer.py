"""A checkpoint's tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from adprior_build.checkpoints.gguf_file import GgufFile
from adprior_runtime.bundle import TOKENIZER_FILE
from adprior_runtime.errors import InvalidInputError


def load_tokenizer(source: Path) -> Tokenizer:
    """Return the tokenizer of a checkpoint; that of a GGUF file needs transformers.

    Raises:
        InvalidInputError: It is missing or damaged, or cannot be made from the GGUF file.
    """
    if source.is_file():
        return _gguf_tokenizer(source)
    path = source / TOKENIZER_FILE
    if not path.is_file():
        raise InvalidInputError(f"{source}: no {TOKENIZER_FILE} (a fast tokenizer is needed)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InvalidInputError(f"{path}: not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _gguf_tokenizer(path: Path) -> Tokenizer:
    GgufFile(path)  # says what is wrong with a damaged file
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415  slow, and absent when serving
        from transformers.utils import logging  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"{path}: its tokenizer needs the package {error.name}: pip install 'adprior[build]'"
        ) from error
    logging.disable_progress_bar()
    try:
        loaded = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # whatever its converter meets
        raise InvalidInputError(f"{path}: no tokenizer: {' '.join(str(error).split())}") from error
    tokenizer: Tokenizer = loaded.backend_tokenizer
    return tokenizer
