"""Compares a TensorRT-LLM engine with its configuration and its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adprior_runtime.bundle import PROMPT_FILE, TRIE_DIRECTORY, Manifest
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, TOKENIZER, Target
from adprior_runtime.engines.registry import GPU_IMAGE, TENSORRT_LLM
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.repository import tensorrt_llm_names
from adprior_runtime.repository.checks.bundles import bundle_directory, read_manifest
from adprior_runtime.repository.checks.config_files import Config, Configs
from adprior_runtime.repository.checks.findings import Finding, Level
from adprior_runtime.repository.model_configs import read_config
from adprior_runtime.repository.tensorrt_llm_files import (
    NeededSizes,
    engine_differences,
    find_engine,
    read_engine_config,
)

_VERSION: Final = f"{LLM_ENGINE}/1"
_REBUILD_ENGINE: Final = "the engine does not fit; build it again for this catalogue and deployment"
_ENGINE, _CONFIG = (f"{_VERSION}/{file}" for file in TENSORRT_LLM.files)


def serves_engine(repository: Path) -> bool:
    """Whether a repository is for TensorRT-LLM: it has an engine, or its bundle is for one."""
    if any((repository / _VERSION).glob("rank*.engine")):
        return True
    manifest = read_manifest(repository, LLM_ENGINE)
    return manifest is not None and manifest.engine == TENSORRT_LLM.name


def has_engine_files(repository: Path) -> bool:
    """Whether ``llm_engine`` has any file of a TensorRT-LLM engine."""
    version = repository / _VERSION
    return any(version.glob("*.engine")) or (repository / _CONFIG).is_file()


def require_engine_place(repository: Path) -> None:
    """Refuse to serve an engine from a directory where the server would not look for it.

    Raises:
        InvalidInputError: ``gpt_model_path`` is another directory, or does not exist.
    """
    config = read_config(repository / LLM_ENGINE / "config.pbtxt")
    place = Path(config.parameters[tensorrt_llm_names.ENGINE_PATH].string_value)
    version = repository / _VERSION
    if not place.is_dir() or not place.samefile(version):
        raise InvalidInputError(
            f"{repository}: config.pbtxt looks for the engine in {place}, it is in {version}; "
            "mount the repository where the deployment's repository_path says"
        )


def check_engine(
    repository: Path,
    configs: Configs,
    level: Level,
    *,
    may_be_missing: bool,
    is_in_place: bool = True,
) -> Iterator[Finding]:
    """Check the engine's files, its sizes against what requests need, and its vocabulary.

    ``may_be_missing`` accepts a repository whose engine is not built yet. The full level compares
    the engine's path with the usual one, if the repository is in its place.
    """
    config = configs[Target.TENSORRT_LLM].get(LLM_ENGINE)
    manifest = read_manifest(repository, TOKENIZER)
    if config is not None and level is Level.FULL:
        yield from _check_width(config, manifest)
        if is_in_place:
            yield from _check_place(config)
    directory = repository / _VERSION
    try:
        engine = find_engine(directory)
    except ArtefactError as error:
        yield Finding.from_error(_VERSION, error, directory, "one engine, for one GPU")
    else:
        yield from _check_files(repository, engine, level, may_be_missing=may_be_missing)
    if not (repository / _CONFIG).is_file():
        return
    try:
        document = read_engine_config(directory)
    except ArtefactError as error:
        yield Finding.from_error(_CONFIG, error, repository / _CONFIG, "what trtllm-build writes")
        return
    if config is not None:
        needed = _needed_sizes(repository, manifest)
        for found, expected in engine_differences(document, _parameters(config), needed):
            yield Finding(_CONFIG, found, expected, _REBUILD_ENGINE)
    if level is Level.FULL:
        yield from _check_vocabulary(repository, document)


def _check_files(
    repository: Path, engine: Path | None, level: Level, *, may_be_missing: bool
) -> Iterator[Finding]:
    """Check that engine and configuration are both there, or both missing if that is accepted."""
    has_config = (repository / _CONFIG).is_file()
    if engine is None and has_config:
        expected = "the engine that config.json belongs to"
        yield Finding(_ENGINE, "no engine", expected, may_pass=True)
    elif engine is None and not may_be_missing:
        expected = (
            "the engine: run the commands that `adprior build --dry-run` printed inside "
            f"{GPU_IMAGE}, or build without --dry-run"
        )
        if level is Level.FULL:
            expected += " (--allow-missing-engine accepts this)"
        yield Finding(_ENGINE, "no engine", expected, may_pass=True)
    elif engine is not None and not has_config:
        expected = "what trtllm-build wrote beside rank0.engine: copy it from there"
        yield Finding(_CONFIG, "no such file", expected, may_pass=True)
    if engine is not None and not engine.stat().st_size:
        yield Finding(_ENGINE, "an empty file", "the engine")


def _check_place(config: Config) -> Iterator[Finding]:
    path = _parameters(config).get(tensorrt_llm_names.ENGINE_PATH, "")
    if PurePosixPath(path).parts[-2:] != PurePosixPath(_VERSION).parts:
        expected = f"the place of {_VERSION} in the container: .../{_VERSION}"
        yield Finding(config.file, f"parameter {tensorrt_llm_names.ENGINE_PATH} {path!r}", expected)


def _check_width(config: Config, manifest: Manifest | None) -> Iterator[Finding]:
    width = _parameters(config).get(tensorrt_llm_names.MAX_BEAM_WIDTH, "1")
    if manifest is not None and width != str(manifest.beam_width):
        expected = f"{manifest.beam_width}, the bundle's beam_width: every request asks for it"
        yield Finding(
            config.file, f"parameter {tensorrt_llm_names.MAX_BEAM_WIDTH} {width!r}", expected
        )


def _parameters(config: Config) -> dict[str, str]:
    return {key: item.string_value for key, item in config.message.parameters.items()}


def _needed_sizes(repository: Path, manifest: Manifest | None) -> NeededSizes | None:
    """Return the sizes that requests need; None if manifest or template cannot be read."""
    if manifest is None:
        return None
    try:
        return NeededSizes.of(manifest, bundle_directory(repository, TOKENIZER) / PROMPT_FILE)
    except ArtefactError:
        return None  # the check of the bundles reports it


def _check_vocabulary(repository: Path, document: dict[str, Any]) -> Iterator[Finding]:
    try:
        trie = Trie.load(bundle_directory(repository, ADVERTISER_DECODER) / TRIE_DIRECTORY)
    except ArtefactError:
        return  # the check of the bundles reports it
    largest = int(trie.child_tokens.max())
    model = document.get("pretrained_config")
    vocabulary = model.get("vocab_size") if isinstance(model, dict) else None
    if not isinstance(vocabulary, int) or vocabulary <= largest:
        expected = f"more than {largest}, a token of the catalogue's names"
        yield Finding(_CONFIG, f"pretrained_config.vocab_size {vocabulary}", expected)
