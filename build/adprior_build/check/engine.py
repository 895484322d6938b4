"""A TensorRT-LLM engine against the configuration and the bundle that it is served with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adprior_build.check.bundles import bundle_directory, read_manifest
from adprior_build.check.configs import Config, Configs
from adprior_build.check.findings import Finding
from adprior_runtime.bundle import (
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TRIE_DIRECTORY,
    Manifest,
)
from adprior_runtime.compiled_engine import ENGINE_KIND
from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, TOKENIZER, Target
from adprior_runtime.errors import ArtefactError
from adprior_runtime.gpu_faults import TENSORRT_LLM_VERSION
from adprior_runtime.prompt import PromptTemplate
from adprior_runtime.trie import Trie

__all__ = ["check_engine", "serves_engine"]

_VERSION: Final = f"{LLM_ENGINE}/1"
_CONFIG: Final = f"{_VERSION}/config.json"
_PLUGINS: Final = {
    "use_paged_context_fmha": "enable_kv_cache_reuse needs it",
    "remove_input_padding": "batching in flight needs it",
}


def serves_engine(repository: Path) -> bool:
    """Whether a repository is for TensorRT-LLM: it has an engine, or nothing else to run.

    A repository for the embedded server alone has a bundle made for ONNX, and its ONNX model.
    """
    version = repository / LLM_ENGINE / "1"
    if any(version.glob("*.engine")) or (repository / _CONFIG).is_file():
        return True
    manifest = read_manifest(repository, LLM_ENGINE)
    has_onnx = (bundle_directory(repository, LLM_ENGINE) / ONNX_MODEL_FILE).is_file()
    return not has_onnx and (manifest is None or manifest.engine == ENGINE_KIND)


def check_engine(repository: Path, configs: Configs, *, may_be_missing: bool) -> Iterator[Finding]:
    """Check the engine's files, and its sizes against what will be asked of it.

    Args:
        repository: A model repository for TensorRT-LLM.
        configs: Its configurations.
        may_be_missing: Whether the engine is still to be built and put there.
    """
    config = configs[Target.GPU].get(LLM_ENGINE)
    manifest = read_manifest(repository, TOKENIZER)
    if config is not None:
        yield from _check_parameters(config, manifest)
    document = _read(repository / _CONFIG)
    if document is None:
        if (repository / _CONFIG).is_file():
            yield Finding(_CONFIG, "no engine's configuration", "what trtllm-build writes")
        elif not may_be_missing:
            yield Finding(
                _CONFIG, "no such file", "the engine: build it, or say --allow-missing-engine"
            )
        return
    ranks = _get(document, "pretrained_config", "mapping", "world_size")
    for rank in range(ranks if isinstance(ranks, int) and ranks > 0 else 1):
        file = f"{_VERSION}/rank{rank}.engine"
        if not (repository / file).is_file() or not (repository / file).stat().st_size:
            yield Finding(file, "no engine", f"the engine of rank {rank}, beside its config.json")
    if (version := document.get("version")) != TENSORRT_LLM_VERSION:
        told = f"{TENSORRT_LLM_VERSION}: the pinned container loads no other"
        yield Finding(_CONFIG, f"an engine of TensorRT-LLM {version}", told)
    yield from _check_sizes(repository, document, config, manifest)


def _check_parameters(config: Config, manifest: Manifest | None) -> Iterator[Finding]:
    parameters = {key: item.string_value for key, item in config.message.parameters.items()}
    path = parameters.get("gpt_model_path", "")
    if PurePosixPath(path).parts[-2:] != PurePosixPath(_VERSION).parts:
        told = f"the place of {_VERSION} in the container: .../{_VERSION}"
        yield Finding(config.file, f"parameter gpt_model_path {path!r}", told)
    width = parameters.get("max_beam_width", "1")
    if manifest is not None and width != str(manifest.beam_width):
        told = f"{manifest.beam_width}, the bundle's beam_width: every request asks for it"
        yield Finding(config.file, f"parameter max_beam_width {width!r}", told)


def _check_sizes(
    repository: Path, document: dict[str, Any], config: Config | None, manifest: Manifest | None
) -> Iterator[Finding]:
    # Requests beyond max_batch_size wait in the engine: less than Triton's is no fault.
    needed: dict[str, tuple[int, str]] = {"max_batch_size": (1, "one user at a time")}
    if config is not None:
        width = config.message.parameters["max_beam_width"].string_value
        if width.isdecimal():
            needed["max_beam_width"] = (int(width), "the configuration's max_beam_width")
    prompt, largest_token = _read_bundle(repository)
    if prompt is not None:
        needed["max_input_len"] = needed["max_num_tokens"] = (prompt, "the prompt's budget")
    if prompt is not None and manifest is not None:
        # Shorter, and TensorRT-LLM would cut names off without a word.
        total = prompt + manifest.longest_name_tokens
        needed["max_seq_len"] = (total, "the prompt's budget and the longest name")
    for key, (least, reason) in needed.items():
        found = _get(document, "build_config", key)
        if not isinstance(found, int) or found < least:
            yield Finding(_CONFIG, f"build_config.{key} {found}", f"at least {least}, {reason}")
    vocabulary = _get(document, "pretrained_config", "vocab_size")
    if largest_token is not None and (
        not isinstance(vocabulary, int) or vocabulary <= largest_token
    ):
        told = f"more than {largest_token}, a token of the catalogue's names"
        yield Finding(_CONFIG, f"pretrained_config.vocab_size {vocabulary}", told)
    kind = str(_get(document, "build_config", "kv_cache_type")).rpartition(".")[2]
    if kind.upper() != "PAGED":
        told = "PAGED: batching in flight and reuse of prompts need it"
        yield Finding(_CONFIG, f"build_config.kv_cache_type {kind}", told)
    for plugin, why in _PLUGINS.items():
        if _get(document, "build_config", "plugin_config", plugin) is not True:
            yield Finding(_CONFIG, f"plugin_config.{plugin} disabled", f"it enabled: {why}")


def _read_bundle(repository: Path) -> tuple[int | None, int | None]:
    """Return the prompt's budget and the largest token of a name, where they can be read."""
    prompt, token = None, None
    try:
        template = bundle_directory(repository, TOKENIZER) / PROMPT_FILE
        prompt = PromptTemplate.load(template).max_prompt_tokens
        trie = Trie.load(bundle_directory(repository, ADVERTISER_DECODER) / TRIE_DIRECTORY)
        token = int(trie.child_tokens.max())
    except ArtefactError:
        pass  # the check of the bundles says so
    return prompt, token


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _get(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document
