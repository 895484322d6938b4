"""Inputs of the image's tools: the checkpoint in the layout they read, and calibration prompts.

Checkpoints are written by transformers 5; the image has transformers 4.57, which ignores
``rope_parameters`` and silently takes default frequencies: the engine would run, and forecast
nonsense. So ``config.json`` is rewritten in the older layout. Weights are linked. No Python file,
pickle or ``auto_map`` is copied, since the scripts load checkpoints with ``trust_remote_code``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from adprior_build.checkpoints.adapter import BASE_FILE
from adprior_build.tensorrt_llm.model_shape import read_config
from adprior_runtime.bundle import PROMPT_FILE, TOKENIZER_FILE
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.text.json_text import to_json

_MIN_PROMPTS: Final = 32
_DROPPED: Final = ("rope_parameters", "transformers_version", "dtype")


def write_checkpoint(checkpoint: Path, directory: Path, *, needs_weights: bool) -> None:
    """Write a checkpoint directory that the image's scripts read correctly.

    Args:
        checkpoint: The checkpoint of ``adprior train``.
        directory: The directory to write; it may not exist yet.
        needs_weights: Whether to refuse a checkpoint without weights.

    Raises:
        InvalidInputError: It is an adapter, has no safetensors, or an unsupported configuration.
    """
    if (checkpoint / BASE_FILE).is_file():
        raise InvalidInputError(
            f"{checkpoint}: an adapter; an engine needs a whole checkpoint: train with --merge"
        )
    weights = sorted(checkpoint.glob("*.safetensors"))
    if needs_weights and not weights:
        raise InvalidInputError(f"{checkpoint}: no .safetensors file; pickled weights are not read")
    directory.mkdir(parents=True, exist_ok=True)
    config = older_config(read_config(checkpoint / "config.json"))
    (directory / "config.json").write_text(to_json(config, indent=2) + "\n", encoding="utf-8")
    for file in [*weights, *sorted(checkpoint.glob("*.safetensors.index.json"))]:
        link_or_copy(file.resolve(), directory / file.name)
    link_or_copy(checkpoint / TOKENIZER_FILE, directory / TOKENIZER_FILE, link=False)
    terminator = json.loads((checkpoint / PROMPT_FILE).read_text(encoding="utf-8"))["terminator"]
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": terminator,
        "pad_token": terminator,  # without it, quantize.py looks for a Qwen token by number
        "clean_up_tokenization_spaces": False,
    }
    path = directory / "tokenizer_config.json"
    path.write_text(to_json(tokenizer, indent=2) + "\n", encoding="utf-8")


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``config.json`` of transformers 4 or 5 in the layout of transformers 4.

    Raises:
        InvalidInputError: The older layout cannot express its rotary parameters.
    """
    older = {key: value for key, value in config.items() if key not in _DROPPED}
    if (dtype := config.get("dtype") or config.get("torch_dtype")) is not None:
        older["torch_dtype"] = dtype
    if "hidden_activation" in config:  # Gemma 2 and 3; TensorRT-LLM reads hidden_act
        older.setdefault("hidden_act", config["hidden_activation"])
    if "_sliding_window_pattern" in config:
        older.setdefault("sliding_window_pattern", config["_sliding_window_pattern"])
    rotary = config.get("rope_parameters")
    if rotary is None:
        return older
    if isinstance(rotary, Mapping) and "full_attention" in rotary:  # Gemma 3: one for each kind
        local = _rotary(rotary.get("sliding_attention"))
        if local.get("rope_type", "default") != "default":
            raise InvalidInputError("config.json: scaled rotary positions in a layer with a window")
        older["rope_local_base_freq"] = local["rope_theta"]
        rotary = rotary["full_attention"]
    rotary = _rotary(rotary)
    scaling = {key: value for key, value in rotary.items() if key != "rope_theta"}
    older["rope_theta"] = rotary["rope_theta"]
    older["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling
    return older


def _rotary(found: object) -> Mapping[str, Any]:
    """Return the rotary parameters of one kind of layer, or refuse them."""
    theta = found.get("rope_theta") if isinstance(found, Mapping) else None
    if isinstance(found, Mapping) and isinstance(theta, int | float) and theta > 0:
        return found
    raise InvalidInputError(
        f"config.json: rope_parameters are {found!r:.80}, expected an object with rope_theta"
    )


def check_calibration(users: Path, checkpoint: Path) -> None:
    """Refuse users that `write_calibration` would refuse, without writing anything."""
    _require_enough(users, sum(1 for _ in _prompts(users, checkpoint)))


def write_calibration(users: Path, checkpoint: Path, directory: Path) -> int:
    """Render users' prompts into ``train.jsonl``, under ``text``, to calibrate fp8's scales.

    Args:
        users: User contexts, one JSON document per line.
        checkpoint: Its template and tokenizer are used.
        directory: The directory to write; it may not exist yet.

    Returns:
        The number of prompts.

    Raises:
        InvalidInputError: A line is not a user context, or there are too few.
    """
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    with (directory / "train.jsonl").open("w", encoding="utf-8") as output:
        for text in _prompts(users, checkpoint):
            output.write(to_json({"text": text}, ensure_ascii=False) + "\n")
            count += 1
    return _require_enough(users, count)


def _prompts(users: Path, checkpoint: Path) -> Iterator[str]:
    renderer = PromptRenderer.load(checkpoint / PROMPT_FILE, checkpoint / TOKENIZER_FILE)
    tokenizer = Tokenizer.from_file(str(checkpoint / TOKENIZER_FILE))
    try:
        with users.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    prompt = renderer.render(parse_context(line))
                except InvalidRequestError as error:
                    raise InvalidInputError(f"{users}, line {number}: {error}") from error
                yield tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
    except OSError as error:
        raise InvalidInputError(f"{users}: {error.strerror}") from error


def _require_enough(users: Path, count: int) -> int:
    if count < _MIN_PROMPTS:
        raise InvalidInputError(
            f"{users}: {count} users, expected at least {_MIN_PROMPTS} to calibrate fp8's scales"
        )
    return count
