"""The bundle that tests share: the tiny checkpoint, built by `adprior build`, once per session."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from adprior_build.head.onnx_head import HeadMetadata, write_head
from adprior_build.head.variants import Head
from adprior_runtime.bundle import HEAD_FILE, MANIFEST, Manifest
from adprior_runtime.cli import main
from adprior_runtime.head.features import FEATURE_NAMES
from support.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle's directory; the workers of pytest-xdist share it, so do not change it."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    place /= "tiny"
    place.mkdir(exist_ok=True)
    bundle = place / "bundle"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.is_dir():
            build_tiny_bundle(bundle)
    return bundle


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
