"""A compiled TensorRT-LLM engine on disk, and whether it fits the configuration around it.

``trtllm-build`` writes ``config.json`` beside ``rank0.engine``: what it was built with, and for
which sizes (``build_config``). An engine takes no request beyond its sizes, and a server whose
configuration asks for more fails at load or, worse, at the first long prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_runtime.errors import ArtefactError
from adprior_runtime.gpu_faults import TENSORRT_LLM_VERSION

__all__ = [
    "ENGINE_KIND",
    "KV_SHARE",
    "NeededSizes",
    "engine_mismatches",
    "find_engine",
    "is_kv_share",
    "read_engine_config",
    "read_engine_parameters",
]

ENGINE_KIND: Final = "tensorrt-llm"
"""A manifest's ``engine``, and the option of ``adprior build``."""

KV_SHARE: Final = "kv_cache_free_gpu_mem_fraction"
"""The parameter with the part of the free memory that becomes KV cache."""

_CONFIG: Final = "config.json"
_ENGINE: Final = "rank0.engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededSizes:
    """What requests ask of an engine.

    Attributes:
        prompt_tokens: The longest prompt.
        name_tokens: The longest name, terminator included: what is generated.
        beam_width: Of every request.
        concurrency: Requests that run at once; None where nothing says.
    """

    prompt_tokens: int
    name_tokens: int
    beam_width: int
    concurrency: int | None = None


def find_engine(directory: Path) -> Path | None:
    """Return the engine file of one GPU in ``directory``; None if there is none.

    Raises:
        ArtefactError: It is an engine for several GPUs.
    """
    found = sorted(directory.glob("rank*.engine"))
    if len(found) > 1:
        raise ArtefactError(
            f"{directory}: an engine for {len(found)} GPUs, expected one file, {_ENGINE}; "
            "build it with tensor_parallelism = 1"
        )
    return found[0] if found else None


def read_engine_config(directory: Path) -> dict[str, Any]:
    """Read the ``config.json`` that ``trtllm-build`` wrote beside the engine.

    Raises:
        ArtefactError: It is missing or not one.
    """
    path = directory / _CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: not an engine's configuration: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("build_config"), dict):
        raise ArtefactError(f"{path}: not an engine's configuration (no build_config)")
    return document


def read_engine_parameters(path: Path) -> dict[str, str]:
    """Read the ``parameters`` block of the engine's ``config.pbtxt``.

    Raises:
        ArtefactError: It is missing or not one.
    """
    from google.protobuf import text_format  # noqa: PLC0415  heavy, and no need of the client's
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ArtefactError(f"{path}: not a model's configuration: {error}") from error
    return {key: str(value.string_value) for key, value in config.parameters.items()}


def is_kv_share(text: str) -> bool:
    """Whether a value of `KV_SHARE` is a share, above 0 and below 1."""
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def engine_mismatches(
    engine_config: Mapping[str, Any],
    parameters: Mapping[str, str],
    needed: NeededSizes | None = None,
) -> list[str]:
    """Say where an engine does not fit a model configuration; an empty list when it does.

    Args:
        engine_config: What `read_engine_config` returns.
        parameters: The ``parameters`` block of ``llm_engine/config.pbtxt``.
        needed: What requests ask; None compares with ``parameters`` alone.

    Returns:
        One line for each mismatch: what was found, what was expected.
    """
    built = engine_config.get("build_config", {})
    plugins = built.get("plugin_config", {})
    found = [
        *_wrong_version(engine_config.get("version")),
        *_wrong_widths(built, parameters),
        *_wrong_features(built, plugins, parameters),
    ]
    if needed is not None:
        found += _too_small(built, needed)
    return found


def _wrong_version(version: object) -> list[str]:
    if version == TENSORRT_LLM_VERSION:
        return []
    return [f"the engine was built by TensorRT-LLM {version}, expected {TENSORRT_LLM_VERSION}"]


def _wrong_widths(built: Mapping[str, Any], parameters: Mapping[str, str]) -> list[str]:
    asked, width = parameters.get("max_beam_width", "1"), built.get("max_beam_width")
    if not asked.isdecimal():
        return [f"max_beam_width is {asked!r} in config.pbtxt, expected a whole number"]
    if width == int(asked):
        return []
    return [f"the engine has max_beam_width {width}, config.pbtxt says {asked}"]


def _wrong_features(
    built: Mapping[str, Any], plugins: Mapping[str, Any], parameters: Mapping[str, str]
) -> list[str]:
    found = []
    in_flight = parameters.get("gpt_model_type", "").startswith("inflight")
    cache = str(built.get("kv_cache_type", "")).upper().rpartition(".")[2]
    if in_flight and cache != "PAGED":
        found.append(f"the engine has kv_cache_type {cache or None}, batching needs PAGED")
    if in_flight and plugins.get("remove_input_padding") is not True:
        found.append("the engine was built without remove_input_padding, which batching needs")
    reuse = parameters.get("enable_kv_cache_reuse", "").lower() == "true"
    if reuse and plugins.get("use_paged_context_fmha") is not True:
        found.append(
            "enable_kv_cache_reuse is true, the engine was built without use_paged_context_fmha"
        )
    return found


def _too_small(built: Mapping[str, Any], needed: NeededSizes) -> list[str]:
    expected = {
        "max_input_len": needed.prompt_tokens,
        "max_seq_len": needed.prompt_tokens + needed.name_tokens,
        "max_num_tokens": needed.prompt_tokens,
        "max_batch_size": needed.concurrency or 1,
    }
    found = []
    for name, least in expected.items():
        value = built.get(name)
        if not isinstance(value, int) or value < least:
            found.append(f"the engine has {name} {value}, requests need {least}")
    if built.get("max_beam_width") != needed.beam_width:
        width = built.get("max_beam_width")
        found.append(f"the engine has max_beam_width {width}, requests ask for {needed.beam_width}")
    return found
