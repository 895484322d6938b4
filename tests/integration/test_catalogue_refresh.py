"""A bundle gets a new catalogue without torch and without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adprior_runtime.bundle import Manifest, hash_file
from adprior_runtime.cli import main
from support.data_set import user
from support.servers import serve, start_server
from support.small_checkpoint import run_without_torch


@pytest.mark.triton
def test_a_refreshed_catalogue_is_served(bundle: Path, tmp_path: Path) -> None:
    new, output = tmp_path / "new.csv", tmp_path / "repository"
    new.write_text("advertiser_id,name,aliases\n7,Acme,\n8,Brand New Gmbh,BNG\n9,Kite,\n")
    run_without_torch("build", "--bundle", bundle, "--catalogue", new, "--output", output)
    with serve(start_server(output)) as served:
        forecast = served.retrieval.forecast(user(), k=10)
    assert {(a.advertiser_id, a.name) for a in forecast.advertisers} == {
        (7, "Acme"),
        (8, "Brand New Gmbh"),
        (9, "Kite"),
    }
    assert forecast.exact
    old = Manifest.load(bundle / "manifest.json")
    new_manifest = Manifest.load(output / "tokenizer" / "1" / "bundle" / "manifest.json")
    assert forecast.bundle_id == new_manifest.bundle_id != old.bundle_id
    assert new_manifest.catalogue_lineage[:-1] == old.catalogue_lineage


def _write_hashes(bundle: Path) -> None:
    """Make the manifest agree with files that were changed."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    document["files"] = {name: hash_file(bundle / name) for name in document["files"]}
    path.write_text(json.dumps(document))
    path.write_text(Manifest.load(path).sealed().to_json())


def test_a_trie_of_another_tokenizer_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    _write_hashes(copy)
    assert main(["build", "--bundle", str(copy), "--output", str(tmp_path / "out")]) == 2
    assert "the trie was made with another tokenizer" in capsys.readouterr().err
