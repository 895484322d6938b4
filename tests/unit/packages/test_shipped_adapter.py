"""The adapter in git: small enough, whole, and under the terms of what it is derived from."""

from __future__ import annotations

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.checkpoints.adapter import Base
from adprior_build.checkpoints.packaged_base import PACKAGES
from adprior_runtime.head.head import PriorHead
from support.paths import DEMO

ADAPTER = DEMO / "adapter"
LARGEST_BYTES = 16 * 2**20


def test_it_is_small_and_its_base_is_a_package() -> None:
    assert sum(path.stat().st_size for path in ADAPTER.iterdir()) <= LARGEST_BYTES
    base = Base.load(ADAPTER / "base.json")
    assert base.package is not None
    assert base.sha256 == PACKAGES[base.package]


def test_its_head_was_fitted_with_its_catalogue() -> None:
    head = PriorHead(ADAPTER / "head.onnx")
    assert head.is_fitted
    catalogue = read_catalogue(ADAPTER / "catalogue.parquet")
    assert head.metadata["catalogue_fingerprint"] == catalogue.fingerprint


def test_the_notice_is_the_one_that_gemmas_terms_ask_for() -> None:
    terms = (ADAPTER / "GEMMA_TERMS.md").read_text(encoding="utf-8")
    (line, *_) = (ADAPTER / "NOTICE").read_text(encoding="utf-8").splitlines()
    assert f'the following notice: "{line}"' in terms
