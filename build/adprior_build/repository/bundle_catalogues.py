"""Writes the catalogues of a bundle, advertisers and interests: the files, arrays and tries."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from adprior_build.catalogue.catalogue_file import Catalogue, Kind, read_catalogue
from adprior_build.data.tables import read_table
from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    CATALOGUE_FILE,
    INTEREST_TRIE_DIRECTORY,
    INTERESTS_DIRECTORY,
    INTERESTS_FILE,
    POPULARITY_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Manifest,
    hash_file,
)
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate


def read_bundle_catalogue(path: Path, directory: Path, kind: Kind = "advertiser") -> Catalogue:
    """Read a catalogue; report names that the unfinished bundle's prompt template would cut."""
    catalogue = read_catalogue(path, kind)
    template = PromptTemplate.load(directory / PROMPT_FILE)
    if note := catalogue.check_lengths(template.max_field_chars):
        print(f"adprior build: {note}", file=sys.stderr)
    return catalogue


def add_catalogue(directory: Path, catalogue: Catalogue, manifest: Manifest) -> Manifest:
    """Write catalogue, trie and advertisers; return the manifest that describes them."""
    renderer = PromptRenderer.load(directory / PROMPT_FILE, directory / TOKENIZER_FILE)
    counts = read_table(directory / POPULARITY_FILE, ["advertiser_id", "events"])
    events = dict(
        zip(counts["advertiser_id"].to_pylist(), counts["events"].to_pylist(), strict=True)
    )
    trie = _write_names(
        catalogue, renderer, events, directory / ADVERTISERS_DIRECTORY, directory / TRIE_DIRECTORY
    )
    pa.parquet.write_table(catalogue.table, directory / CATALOGUE_FILE)
    fingerprint = catalogue.fingerprint
    lineage = tuple(item for item in manifest.catalogue_lineage if item != fingerprint)
    return replace(
        manifest,
        longest_name_tokens=trie.depth,
        catalogue_fingerprint=fingerprint,
        catalogue_lineage=(*lineage, fingerprint),
        trie_tokenizer_sha256=hash_file(directory / TOKENIZER_FILE),
        prompt_head_ids=tuple(renderer.head_ids),
    )


def add_interests(directory: Path, path: Path, manifest: Manifest) -> Manifest:
    """Write the interests beside the advertisers; return the manifest that describes them.

    Raises:
        InvalidInputError: Nothing in the prompt would tell an interest from an advertiser.
    """
    renderer = PromptRenderer.load(directory / PROMPT_FILE, directory / TOKENIZER_FILE)
    if not renderer.interest_tail_ids:
        raise InvalidInputError(
            f"{path}: the prompt template has no interest_tail, the text between a prompt and an "
            "interest: train with one"
        )
    interests = read_bundle_catalogue(path, directory, "interest")
    _write_names(
        interests,
        renderer,
        {},  # a forecast of interests needs no popularity
        directory / INTERESTS_DIRECTORY,
        directory / INTEREST_TRIE_DIRECTORY,
    )
    pa.parquet.write_table(interests.table, directory / INTERESTS_FILE)
    return replace(manifest, interest_tail_ids=tuple(renderer.interest_tail_ids))


def _write_names(
    catalogue: Catalogue,
    renderer: PromptRenderer,
    events: Mapping[int, int],
    table_directory: Path,
    trie_directory: Path,
) -> Trie:
    """Write a catalogue's arrays and the trie of its names; return the trie.

    Args:
        catalogue: The catalogue.
        renderer: Tokenises the names.
        events: Training events by id; an id without an entry has none.
        table_directory: New directory for the arrays.
        trie_directory: New directory for the trie.
    """
    trie, path_counts = catalogue.build_trie(renderer.name_ids)
    counts = [events.get(key, 0) for key in catalogue.ids]
    table = Advertisers.build(catalogue.ids, catalogue.names, path_counts, counts)
    table_directory.mkdir()
    table.save(table_directory)
    trie_directory.mkdir()
    trie.save(trie_directory)
    return trie
