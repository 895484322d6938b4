"""A bundle with interests, made from one without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv

from adprior_runtime.bundle import MANIFEST, PROMPT_FILE, Manifest, hash_file
from support.servers import build_repository

INTERESTS: Final = ("Pet food", "Pet food, dry", "Coffee", "Tea", "茶")
TAIL: Final = ("\ncategory: ",)


def write_interests(path: Path, names: Sequence[str] = INTERESTS) -> Path:
    """Write a catalogue of interests with the ids 7, 8 and so on."""
    columns = {"interest_id": [7 + row for row in range(len(names))], "name": list(names)}
    pa.csv.write_csv(pa.table(columns), path)
    return path


def set_interest_tail(bundle: Path, copy: Path, tail: Sequence[str] = TAIL) -> Path:
    """Copy a bundle and give its prompt template an interest tail; return the copy."""
    shutil.copytree(bundle, copy)
    template = json.loads((copy / PROMPT_FILE).read_text(encoding="utf-8"))
    (copy / PROMPT_FILE).write_text(json.dumps(template | {"interest_tail": tail}))
    manifest = Manifest.load(copy / MANIFEST)
    files = {**manifest.files, PROMPT_FILE: hash_file(copy / PROMPT_FILE)}
    (copy / MANIFEST).write_text(replace(manifest, files=files).sealed().to_json())
    return copy


def add_interests(bundle: Path, place: Path, *options: str) -> Path:
    """Make ``place/bundle`` and ``place/repository`` with `INTERESTS`; return the bundle."""
    place.mkdir(exist_ok=True)
    source = set_interest_tail(bundle, place / "source")
    path = write_interests(place / "interests.csv")
    options = ("--interests", str(path), "--save-bundle", str(place / "bundle"), *options)
    build_repository(source, place / "repository", *options)
    return place / "bundle"
