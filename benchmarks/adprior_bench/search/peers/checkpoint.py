"""A checkpoint for peers: plain Hugging Face files, with the catalogue's terminator as the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from adprior_build.checkpoints.checkpoint import Checkpoint
from adprior_build.checkpoints.hugging_face import CONFIG_FILE, WEIGHTS_FILE
from adprior_runtime.bundle import TOKENIZER_FILE
from adprior_runtime.text.json_text import to_json


def write_checkpoint(
    checkpoint: Checkpoint, tokenizer: Tokenizer, end_id: int, directory: Path
) -> None:
    """Write a checkpoint in float32, an adapter's corrections added to its weights.

    Args:
        checkpoint: Configuration and weights.
        tokenizer: Its tokenizer.
        end_id: The token that ends every name.
        directory: An existing directory.
    """
    weights = {name: np.ascontiguousarray(value) for name, value in checkpoint.weights.items()}
    save_file(weights, directory / WEIGHTS_FILE, {"format": "pt"})
    tokenizer.save(str(directory / TOKENIZER_FILE))
    end = tokenizer.id_to_token(end_id)
    documents = {
        CONFIG_FILE: checkpoint.config | {"eos_token_id": end_id, "dtype": "float32"},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end},
    }
    for name, document in documents.items():
        (directory / name).write_text(to_json(document, indent=2), encoding="utf-8")
