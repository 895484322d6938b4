"""The files of a compiled TensorRT-LLM engine, compared with its model configuration.

``trtllm-build`` writes ``config.json`` beside ``rank0.engine``. It contains the versions and
options of the build, and the sizes that the engine accepts (``build_config``). If requests need
larger sizes, the server fails when it loads or, worse, at the first long prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from adprior_runtime.bundle import Manifest
from adprior_runtime.engines.registry import TENSORRT_LLM, TENSORRT_LLM_VERSION
from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.repository import tensorrt_llm_names

FLOAT16_OVERFLOWS: Final = ("Gemma3ForCausalLM",)
"""Architectures whose activations exceed float16's range (transformers #36822)."""

_ENGINE, _CONFIG = TENSORRT_LLM.files


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededSizes:
    """The sizes that requests need.

    Attributes:
        prompt_tokens: Tokens of the longest prompt.
        name_tokens: Tokens of the longest name, terminator included.
        beam_width: The beam width of every request.
        concurrency: Number of requests that run at once; None if unknown.
    """

    prompt_tokens: int
    name_tokens: int
    beam_width: int
    concurrency: int | None = None

    @classmethod
    def of(cls, manifest: Manifest, prompt_file: Path) -> Self:
        """Return the sizes that the requests of a bundle need.

        Raises:
            ArtefactError: The prompt template cannot be read.
        """
        return cls(
            prompt_tokens=PromptTemplate.load(prompt_file).max_prompt_tokens,
            name_tokens=manifest.longest_name_tokens,
            beam_width=manifest.beam_width,
        )


def find_engine(directory: Path) -> Path | None:
    """Return the engine file of one GPU in ``directory``; None if there is none.

    Raises:
        ArtefactError: The engine is for several GPUs, or a part of it is missing.
    """
    found = sorted(directory.glob("rank*.engine"))
    if len(found) > 1:
        raise ArtefactError(
            f"{directory}: an engine for {len(found)} GPUs, expected one file, {_ENGINE}; "
            "build it for one GPU (--tp_size 1)"
        )
    if found and found[0].name != _ENGINE:
        raise ArtefactError(f"{directory}: {found[0].name}, expected one file, {_ENGINE}")
    return found[0] if found else None


def read_engine_config(directory: Path) -> dict[str, Any]:
    """Read the ``config.json`` that ``trtllm-build`` wrote beside the engine.

    Raises:
        ArtefactError: The file is missing or something else.
    """
    path = directory / _CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not an engine's configuration: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("build_config"), dict):
        raise ArtefactError(f"{path}: not an engine's configuration (no build_config)")
    return document


def read_engine_parameters(path: Path) -> dict[str, str]:
    """Read the ``parameters`` block of the engine's ``config.pbtxt``.

    Raises:
        ArtefactError: The file is missing or something else.
    """
    from adprior_runtime.repository.model_configs import read_config  # noqa: PLC0415  protobuf

    config = read_config(path)
    return {key: str(value.string_value) for key, value in config.parameters.items()}


def is_kv_share(text: str) -> bool:
    """Return whether a value of `tensorrt_llm_names.KV_CACHE_SHARE` is above 0 and below 1."""
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def engine_differences(
    engine_config: Mapping[str, Any],
    parameters: Mapping[str, str],
    needed: NeededSizes | None = None,
) -> list[tuple[str, str]]:
    """List the differences between an engine and a model configuration.

    Args:
        engine_config: From `read_engine_config`.
        parameters: The ``parameters`` block of ``llm_engine/config.pbtxt``.
        needed: What requests need; None compares with ``parameters`` only.

    Returns:
        For each difference, the value found and the value expected.
    """
    built = _within(engine_config, "build_config")
    found = [
        *_wrong_version(engine_config.get("version")),
        *_wrong_make(_within(engine_config, "pretrained_config")),
        *_wrong_widths(built, parameters),
        *_wrong_features(built, parameters),
    ]
    if needed is not None:
        found += _too_small(built, needed)
    return list(dict.fromkeys(found))


def _within(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object of a document, empty if there is none."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _wrong_version(version: object) -> Iterator[tuple[str, str]]:
    if version != TENSORRT_LLM_VERSION:
        expected = f"{TENSORRT_LLM_VERSION}: the pinned container loads no other"
        yield f"an engine of TensorRT-LLM {version}", expected


def _wrong_make(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ranks = _within(model, "mapping").get("world_size", 1)
    if ranks != 1:
        yield f"an engine for {ranks} GPUs (world_size)", "one for a single GPU"
    architecture, dtype = model.get("architecture"), model.get("dtype")
    if architecture in FLOAT16_OVERFLOWS and dtype == "float16":
        expected = "bfloat16: its activations overflow float16"
        yield f"an engine of {architecture} in float16 (dtype)", expected
    cache = _within(model, "quantization").get("kv_cache_quant_algo")
    if cache is not None:
        expected = "none: log-probabilities need a KV cache of 16 bits"
        yield f"a quantised KV cache (kv_cache_quant_algo {cache})", expected


def _wrong_widths(
    built: Mapping[str, Any], parameters: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    configured = parameters.get(tensorrt_llm_names.MAX_BEAM_WIDTH, "1")
    width = built.get("max_beam_width")
    if not configured.isdecimal():
        found = f"{tensorrt_llm_names.MAX_BEAM_WIDTH} {configured!r} in config.pbtxt"
        yield found, "a whole number"
    elif width != int(configured):
        yield f"an engine of max_beam_width {width}", f"{configured}, as config.pbtxt says"


def _wrong_features(
    built: Mapping[str, Any], parameters: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    plugins = _within(built, "plugin_config")
    in_flight = parameters.get(tensorrt_llm_names.MODEL_TYPE, "").startswith("inflight")
    cache = str(built.get("kv_cache_type", "")).upper().rpartition(".")[2]
    if in_flight and cache != "PAGED":
        yield f"an engine of kv_cache_type {cache or None}", "PAGED: batching in flight needs it"
    if in_flight and plugins.get("remove_input_padding") is not True:
        expected = "one with it: batching in flight needs it"
        yield "an engine built without remove_input_padding", expected
    reuse = parameters.get(tensorrt_llm_names.KV_CACHE_REUSE, "").lower() in {"true", "1"}
    if reuse and plugins.get("use_paged_context_fmha") is not True:
        expected = f"one with it: {tensorrt_llm_names.KV_CACHE_REUSE} needs it"
        yield "an engine built without use_paged_context_fmha", expected


def _too_small(built: Mapping[str, Any], needed: NeededSizes) -> Iterator[tuple[str, str]]:
    users = needed.concurrency
    least: dict[str, tuple[int, str]] = {
        "max_input_len": (needed.prompt_tokens, "the longest prompt"),
        # TensorRT-LLM would silently cut names off at a smaller one.
        "max_seq_len": (needed.prompt_tokens + needed.name_tokens, "the longest prompt and name"),
        "max_num_tokens": (needed.prompt_tokens, "the longest prompt"),
        # Other requests wait in the engine, so it may be smaller than Triton's batch size.
        "max_batch_size": (users or 1, "one user" if users is None else "users at once"),
    }
    for name, (size, reason) in least.items():
        value = built.get(name)
        if not isinstance(value, int) or value < size:
            yield f"an engine of {name} {value}", f"at least {size}, {reason}"
    if (width := built.get("max_beam_width")) != needed.beam_width:
        expected = f"{needed.beam_width}, the beam width of every request"
        yield f"an engine of max_beam_width {width}", expected
