"""A bundle: a directory of artefacts that belong together, with a manifest of their hashes.

::

    manifest.json          versions, hashes, how it was made; see `Manifest`
    tokenizer.json         tokenizer
    prompt.json            prompt template
    model.onnx             language model for the ONNX engine; for the torch engine instead
                           model.safetensors, its weights, and architecture.json
    trie/*.npy             the catalogue's names, tokenised
    advertisers/*.npy      ids, names, log-popularity, paths per advertiser
    interests/*.npy        optional: the interests, with the arrays of ``advertisers/``
    interests/trie/*.npy   their names, tokenised
    head.onnx              prior head
    catalogue.parquet      the catalogue, as read by the build
    interests.parquet      the interests, as read by the build
    popularity.parquet     training events per advertiser

In a repository, each model's version directory has a ``bundle/`` with the manifest and the files
that the model needs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from adprior_runtime.contract import (
    ADVERTISER_DECODER,
    CONTRACT_VERSION,
    LLM_ENGINE,
    MAX_TOP_K,
    PRIOR_HEAD,
    TOKENIZER,
)
from adprior_runtime.engines.registry import ENGINES, ONNX, SINGLE_PRECISION, TORCH
from adprior_runtime.errors import ArtefactError
from adprior_runtime.text.json_text import to_json

MANIFEST: Final = "manifest.json"
TOKENIZER_FILE: Final = "tokenizer.json"
PROMPT_FILE: Final = "prompt.json"
ONNX_MODEL_FILE: Final = ONNX.files[0]
ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE = TORCH.files
ENGINE_FILES: Final = tuple(
    dict.fromkeys(file for kind in ENGINES.values() if kind.is_in_bundle for file in kind.files)
)
HEAD_FILE: Final = "head.onnx"
CATALOGUE_FILE: Final = "catalogue.parquet"
POPULARITY_FILE: Final = "popularity.parquet"
TRIE_DIRECTORY: Final = "trie"
ADVERTISERS_DIRECTORY: Final = "advertisers"
INTERESTS_FILE: Final = "interests.parquet"
INTERESTS_DIRECTORY: Final = "interests"
INTEREST_TRIE_DIRECTORY: Final = f"{INTERESTS_DIRECTORY}/trie"

REPOSITORY_MARKER: Final = f"{TOKENIZER}/1/bundle/{MANIFEST}"
"""A directory with this file is a model repository of `adprior build`."""

TRAINED_PROFILE_KEYS: Final = "profile_keys"
"""Key of the training record with the profile keys that training saw."""
CHECKPOINT_SHA256: Final = "checkpoint_sha256"
"""Key of the training record with the hash of the checkpoint that the build read."""

MODEL_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    TOKENIZER: (TOKENIZER_FILE, PROMPT_FILE, TRIE_DIRECTORY),
    LLM_ENGINE: (*ENGINE_FILES, TRIE_DIRECTORY, ADVERTISERS_DIRECTORY, INTERESTS_DIRECTORY),
    ADVERTISER_DECODER: (TRIE_DIRECTORY, ADVERTISERS_DIRECTORY, INTERESTS_DIRECTORY),
    PRIOR_HEAD: (HEAD_FILE, ADVERTISERS_DIRECTORY),
}
"""The files that each model needs; a directory stands for all files in it. A bundle has the files
of its own engine only, and interests only if it was built with them."""

DISPENSABLE_FILES: Final[Mapping[str, tuple[str, ...]]] = {TOKENIZER: (TRIE_DIRECTORY,)}
"""Files that an earlier version's repository may lack; the model serves without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        bundle_id: Hash of everything else in the manifest.
        contract_version: Version of the tensor contract.
        engine: A name of `adprior_runtime.engines.registry`.
        forecast_k: Default number of advertisers; the prior head is fitted for this number.
        max_top_k: Largest number of advertisers, see `adprior_runtime.search.limits`.
        search_mode: ``beam`` or ``exact``, see `adprior_runtime.search.search`.
        beam_width: Number of prefixes that the search expands in a round.
        token_budget: Tokens after which an exact search with that beam begins no further round.
        candidate_token_budget: Tokens for scoring the candidates of one request.
        prompt_head_ids: Tokens that every prompt begins with.
        interest_tail_ids: Tokens between a prompt and an interest's name.
        longest_name_tokens: Tokens of the longest name, terminator included; the engine's output
            length.
        log_prob_error: Largest error of one token's log-probability, in nats, measured at export;
            0 if not measured (see `adprior_runtime.search.rounding`).
        error_device: The device that this was measured on, ``cpu`` or ``cuda``; empty in earlier
            bundles.
        products: How the engine multiplies matrices, one of its
            `adprior_runtime.engines.registry.EngineKind.products`.
        precision: How the bundle stores the model's matrices.
        precision_loss: Mean change that this makes to the log-probability of a probable token, in
            nats (`adprior_build.onnx_graph.parity`).
        catalogue_fingerprint: Fingerprint of the catalogue.
        catalogue_lineage: Fingerprints of the catalogues that this one was refreshed from, oldest
            first, and its own last. A head fitted with any of them is valid.
        trie_tokenizer_sha256: Hash of the tokenizer that made the trie.
        files: SHA-256 of each file, by its path in the bundle.
        origin: Origin of the training data, in words.
        training: The training record.
        commands: The commands that made the bundle.
    """

    bundle_id: str
    contract_version: str = CONTRACT_VERSION
    engine: str = ONNX.name
    forecast_k: int = 20
    max_top_k: int = 256
    search_mode: str = "exact"
    beam_width: int = 32
    token_budget: int = 512
    candidate_token_budget: int = 4096
    prompt_head_ids: tuple[int, ...] = ()
    interest_tail_ids: tuple[int, ...] = ()
    longest_name_tokens: int = 0
    log_prob_error: float = 0.0
    error_device: str = ""
    products: str = SINGLE_PRECISION
    precision: str = "fp32"
    precision_loss: float = 0.0
    catalogue_fingerprint: str = ""
    catalogue_lineage: tuple[str, ...] = ()
    trie_tokenizer_sha256: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values of a wrong type or range."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "str" and not isinstance(value, str):
                raise ArtefactError(f"manifest: {item.name} is {value!r}, expected text")
            if item.type == "int" and (type(value) is not int or value < 0):
                raise ArtefactError(f"manifest: {item.name} is {value!r}, expected a whole number")
            if item.type == "float" and (type(value) is not float or not 0 <= value < math.inf):
                raise ArtefactError(f"manifest: {item.name} is {value!r}, expected 0 or more")
        if self.engine not in ENGINES:
            raise ArtefactError(
                f"manifest: engine is {self.engine!r}, expected one of {', '.join(ENGINES)}"
            )
        if self.products not in (known := ENGINES[self.engine].products):
            raise ArtefactError(
                f"manifest: products is {self.products!r}, expected one of {', '.join(known)} with "
                f"the engine {self.engine}"
            )
        for name in ("forecast_k", "max_top_k", "beam_width"):
            if not 1 <= getattr(self, name) <= MAX_TOP_K:
                raise ArtefactError(
                    f"manifest: {name} is {getattr(self, name)}, expected 1 to {MAX_TOP_K}"
                )

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest; unknown keys and another contract version are refused."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            if unknown := sorted(set(document) - known):
                raise ArtefactError(f"{path}: unknown keys {unknown}; made by a newer adprior?")
            for key in ("catalogue_lineage", "commands", "prompt_head_ids", "interest_tail_ids"):
                document[key] = tuple(document.get(key, ()))
            manifest = cls(**document)
            for name, digest in manifest.files.items():
                if not isinstance(digest, str) or ".." in Path(name).parts or name.startswith("/"):
                    raise ArtefactError(f"{path}: impossible entry in files: {name!r}")
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"{path}: not a bundle's manifest: {error}") from error
        if manifest.contract_version != CONTRACT_VERSION:
            raise ArtefactError(
                f"{path}: made for contract {manifest.contract_version}, this is {CONTRACT_VERSION}"
            )
        return manifest

    def to_json(self) -> str:
        """Return the manifest as text."""
        return _to_text(asdict(self))

    def sealed(self) -> Manifest:
        """Return the manifest with its id."""
        return replace(self, bundle_id=_id_of(asdict(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on disk; the files that `open` checked match its manifest."""

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path, names: Iterable[str] | None = None) -> Bundle:
        """Open a bundle and check the hashes of all its files, or of ``names`` only.

        Raises:
            ArtefactError: The directory is no bundle, or a file is missing or does not match.
        """
        if not (directory / MANIFEST).is_file():
            raise ArtefactError(f"{directory}: not a bundle (no {MANIFEST})")
        manifest = Manifest.load(directory / MANIFEST)
        check_seal(directory / MANIFEST)
        wanted = None if names is None else tuple(names)
        for name, expected in manifest.files.items():
            if wanted is not None and not any(_within(name, item) for item in wanted):
                continue
            found = hash_file(directory / name)
            if found != expected:
                raise ArtefactError(
                    f"{directory / name}: corrupt or swapped: sha256 {found[:12]}…, "
                    f"the manifest says {expected[:12]}…"
                )
        return cls(directory=directory, manifest=manifest)

    @property
    def has_interests(self) -> bool:
        """Whether the bundle has a catalogue of interests."""
        return self._has(INTERESTS_DIRECTORY)

    def path(self, name: str) -> Path:
        """Return the path of a file or directory of the bundle."""
        if not self._has(name):
            raise ArtefactError(f"{self.directory}: the bundle has no {name}")
        return self.directory / name

    def _has(self, name: str) -> bool:
        return any(_within(item, name) for item in self.manifest.files)


def check_seal(path: Path) -> None:
    """Raise ArtefactError if a manifest was changed after it was written."""
    # Hash the file: the loaded manifest also has keys that an older version did not know.
    document = json.loads(path.read_text(encoding="utf-8"))
    found, expected = document["bundle_id"], _id_of(document)
    if found != expected:
        raise ArtefactError(
            f"{path}: corrupt or edited: its bundle_id is {found}, its content makes {expected}"
        )


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hex; raise ArtefactError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from error


def _id_of(document: Mapping[str, Any]) -> str:
    text = _to_text({**document, "bundle_id": ""})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _to_text(document: Mapping[str, Any]) -> str:
    return to_json(document, indent=2) + "\n"


def _within(name: str, item: str) -> bool:
    return name == item or name.startswith(f"{item}/")
