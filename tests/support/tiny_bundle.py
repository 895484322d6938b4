"""The bundle that tests share: the tiny checkpoint, built by `adprior build`, and its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adprior_build.head.onnx_head import HeadMetadata, write_head
from adprior_build.head.variants import Head
from adprior_runtime.bundle import HEAD_FILE, MANIFEST, Manifest
from adprior_runtime.cli import main
from adprior_runtime.head.features import FEATURE_NAMES
from support.servers import Served, serve, start_server
from support.shared_files import MakeOnce
from support.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_bundle(make_once: MakeOnce) -> Path:
    """Return the bundle's directory; its checkpoint and its repository are beside it."""
    return make_once("tiny", lambda place: build_tiny_bundle(place / "bundle")) / "bundle"


@pytest.fixture(scope="session")
def tiny_repository(tiny_bundle: Path) -> Path:
    return tiny_bundle.with_name("repository")


@pytest.fixture(scope="session")
def tiny_served(tiny_repository: Path) -> Iterator[Served]:
    """A server of the tiny bundle, for tests that leave it as it is."""
    with serve(start_server(tiny_repository)) as running:
        yield running


def build_tiny_bundle(bundle: Path) -> None:
    """Build the bundle, with a head that changes nothing, then again with one that does."""
    place = bundle.parent
    write_tiny_checkpoint(place / "checkpoint")
    first, head = place / "first", place / HEAD_FILE
    build = ["build", "--output", str(place / "repository")]
    from_checkpoint = ["--checkpoint", str(place / "checkpoint"), "--save-bundle", str(first)]
    assert main([*build, *from_checkpoint]) == 0
    _write_head(head, Manifest.load(first / MANIFEST))
    from_bundle = ["--bundle", str(first), "--head", str(head), "--save-bundle", str(bundle)]
    assert main([*build, *from_bundle]) == 0


def _write_head(path: Path, manifest: Manifest) -> None:
    """Write a head that moves logits like a fitted one, though nothing was fitted."""
    weights = np.linspace(-0.4, 0.4, len(FEATURE_NAMES))
    head = Head(
        weights=weights, bias=0.1, mean=np.zeros_like(weights), scale=np.full_like(weights, 3.0)
    )
    metadata = HeadMetadata(
        forecast_k=manifest.forecast_k,
        engine=manifest.engine,
        catalogue_fingerprint=manifest.catalogue_fingerprint,
        fitted_rows=1000,
    )
    write_head(path, head, metadata)
