"""Checks that the artefacts of a bundle, each of them whole, belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    ARCHITECTURE_FILE,
    HEAD_FILE,
    INTEREST_TRIE_DIRECTORY,
    INTERESTS_DIRECTORY,
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.onnx_graph import MAX_POSITIONS, VOCABULARY, require_contract
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.renderer import PromptRenderer

_SAMPLED_NAMES: Final = 200


def check_coherence(bundle: Bundle, *, with_head: bool = True) -> None:
    """Refuse a bundle whose artefacts do not belong together.

    Args:
        bundle: The bundle.
        with_head: Whether to check its head; it does not matter if the head is replaced.

    Raises:
        ArtefactError: The trie was made with another tokenizer or catalogue, the head with another
            catalogue or number of advertisers, or the model is too small for prompt and names.
    """
    from adprior_runtime.head.head import PriorHead  # noqa: PLC0415  onnxruntime

    manifest = bundle.manifest
    if manifest.trie_tokenizer_sha256 != manifest.files.get(TOKENIZER_FILE):
        raise ArtefactError(f"{bundle.directory}: the trie was made with another tokenizer")
    renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
    _check_names(bundle, renderer, "advertiser", ADVERTISERS_DIRECTORY, TRIE_DIRECTORY)
    if bundle.has_interests:
        _check_names(bundle, renderer, "interest", INTERESTS_DIRECTORY, INTEREST_TRIE_DIRECTORY)
        if tuple(renderer.interest_tail_ids) != manifest.interest_tail_ids:
            raise ArtefactError(
                f"{bundle.directory}: the interests were built with another interest_tail than "
                f"that of {PROMPT_FILE}"
            )
    if with_head:
        PriorHead(bundle.path(HEAD_FILE)).require_belongs(manifest)
    if (sizes := _model_sizes(bundle)) is not None:
        _check_sizes(bundle, renderer, *sizes)


def _check_names(
    bundle: Bundle, renderer: PromptRenderer, kind: str, table_name: str, trie_name: str
) -> None:
    table, trie = Advertisers.load(bundle.path(table_name)), Trie.load(bundle.path(trie_name))
    step = max(1, len(table.ids) // _SAMPLED_NAMES)
    for row in range(0, len(table.ids), step):
        name = table.name(row).decode("utf-8")
        if trie.lookup(renderer.name_ids(name)) != row:
            raise ArtefactError(
                f"{bundle.directory}: the trie does not spell {kind} {table.ids[row]} "
                f"({name!r}): it was made with another tokenizer or catalogue"
            )


def _check_sizes(bundle: Bundle, renderer: PromptRenderer, positions: int, vocabulary: int) -> None:
    """Refuse prompts and names that the model cannot take."""
    tries = [Trie.load(bundle.path(TRIE_DIRECTORY))]
    longest = bundle.manifest.longest_name_tokens
    if bundle.has_interests:
        tries.append(Trie.load(bundle.path(INTEREST_TRIE_DIRECTORY)))
        longest = max(longest, len(bundle.manifest.interest_tail_ids) + tries[-1].depth)
    renderer.template.require_positions(positions, longest)
    largest = max(int(trie.child_tokens.max()) for trie in tries)
    if largest >= vocabulary:
        raise ArtefactError(
            f"{bundle.directory}: a name has token {largest}, the model knows {vocabulary}"
        )


def _model_sizes(bundle: Bundle) -> tuple[int, int] | None:
    """Return the model's longest sequence and its vocabulary; None for a compiled engine."""
    files = ENGINES[bundle.manifest.engine].files
    if ARCHITECTURE_FILE in files:
        of = Architecture.load(bundle.path(ARCHITECTURE_FILE))
        return of.max_positions, of.vocabulary
    return _graph_sizes(bundle.path(ONNX_MODEL_FILE)) if ONNX_MODEL_FILE in files else None


def _graph_sizes(path: Path) -> tuple[int, int]:
    """Return an ONNX graph's longest sequence and its vocabulary."""
    import onnx  # noqa: PLC0415  heavy

    try:
        model = onnx.load(str(path), load_external_data=False)
        metadata = {item.key: item.value for item in model.metadata_props}
        require_contract(metadata)
        return int(metadata[MAX_POSITIONS]), int(metadata[VOCABULARY])
    except Exception as error:  # protobuf's errors share no public base
        raise ArtefactError(f"{path}: not a language model in ONNX: {error}") from error
