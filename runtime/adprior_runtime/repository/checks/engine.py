"""A TensorRT-LLM engine against the configuration and the bundle that it is served with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adprior_runtime.bundle import (
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TRIE_DIRECTORY,
    Manifest,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, TOKENIZER, Target
from adprior_runtime.engines.compiled_tensorrt_llm import (
    NeededSizes,
    engine_differences,
    find_engine,
    read_engine_config,
)
from adprior_runtime.engines.registry import TENSORRT_LLM
from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.renderer import PromptTemplate
from adprior_runtime.repository.checks.bundles import bundle_directory, read_manifest
from adprior_runtime.repository.checks.configs import Config, Configs
from adprior_runtime.repository.checks.findings import Finding

_VERSION: Final = f"{LLM_ENGINE}/1"
_ENGINE, _CONFIG = TENSORRT_LLM.files


def serves_engine(repository: Path) -> bool:
    """Whether a repository is for TensorRT-LLM: it has an engine, or nothing else to run.

    A repository for the embedded server alone has a bundle made for ONNX, and its ONNX model.
    """
    version = repository / LLM_ENGINE / "1"
    if any(version.glob("*.engine")) or (version / _CONFIG).is_file():
        return True
    manifest = read_manifest(repository, LLM_ENGINE)
    has_onnx = (bundle_directory(repository, LLM_ENGINE) / ONNX_MODEL_FILE).is_file()
    return not has_onnx and (manifest is None or manifest.engine == TENSORRT_LLM.name)


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
    directory = repository / _VERSION
    try:
        engine = find_engine(directory)
    except ArtefactError as error:
        yield Finding.from_error(_VERSION, error, directory, "one engine, for one GPU")
        engine = None
    else:
        yield from _check_files(engine, directory, may_be_missing=may_be_missing)
    if not (directory / _CONFIG).is_file():
        return
    try:
        document = read_engine_config(directory)
    except ArtefactError as error:
        file, place = f"{_VERSION}/{_CONFIG}", directory / _CONFIG
        yield Finding.from_error(file, error, place, "what trtllm-build writes")
        return
    yield from _check_sizes(repository, document, config, manifest)


def _check_files(
    engine: Path | None, directory: Path, *, may_be_missing: bool
) -> Iterator[Finding]:
    """Check that engine and configuration are both there, or neither where that may be."""
    has_config = (directory / _CONFIG).is_file()
    if engine is None and has_config:
        yield Finding(f"{_VERSION}/{_ENGINE}", "no engine", "the one that config.json is of")
    elif engine is None and not may_be_missing:
        told = "the engine: build it, or say --allow-missing-engine"
        yield Finding(f"{_VERSION}/{_ENGINE}", "no engine", told)
    elif engine is not None and not has_config:
        told = f"what trtllm-build wrote beside {_ENGINE}: copy it from there"
        yield Finding(f"{_VERSION}/{_CONFIG}", "no such file", told)
    if engine is not None and not engine.stat().st_size:
        yield Finding(f"{_VERSION}/{_ENGINE}", "an empty file", "the engine")


def _check_parameters(config: Config, manifest: Manifest | None) -> Iterator[Finding]:
    parameters = _parameters(config)
    path = parameters.get("gpt_model_path", "")
    if PurePosixPath(path).parts[-2:] != PurePosixPath(_VERSION).parts:
        told = f"the place of {_VERSION} in the container: .../{_VERSION}"
        yield Finding(config.file, f"parameter gpt_model_path {path!r}", told)
    width = parameters.get("max_beam_width", "1")
    if manifest is not None and width != str(manifest.beam_width):
        told = f"{manifest.beam_width}, the bundle's beam_width: every request asks for it"
        yield Finding(config.file, f"parameter max_beam_width {width!r}", told)


def _parameters(config: Config) -> dict[str, str]:
    return {key: item.string_value for key, item in config.message.parameters.items()}


def _check_sizes(
    repository: Path, document: dict[str, Any], config: Config | None, manifest: Manifest | None
) -> Iterator[Finding]:
    """Check what `adprior serve` does, and that the engine knows every token of the names."""
    file = f"{_VERSION}/{_CONFIG}"
    prompt, largest_token = _read_bundle(repository)
    needed = None
    if prompt is not None and manifest is not None:
        needed = NeededSizes(
            prompt_tokens=prompt,
            name_tokens=manifest.longest_name_tokens,
            beam_width=manifest.beam_width,
        )
    if config is not None:  # without one, that is the finding
        for found, expected in engine_differences(document, _parameters(config), needed):
            yield Finding(file, found, expected)
    model = document.get("pretrained_config")
    vocabulary = model.get("vocab_size") if isinstance(model, dict) else None
    if largest_token is not None and (
        not isinstance(vocabulary, int) or vocabulary <= largest_token
    ):
        told = f"more than {largest_token}, a token of the catalogue's names"
        yield Finding(file, f"pretrained_config.vocab_size {vocabulary}", told)


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
