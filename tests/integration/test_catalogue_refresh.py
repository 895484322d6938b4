"""A bundle gets a new catalogue without torch and without training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adprior_runtime.bundle import Manifest, hash_file
from adprior_runtime.cli import main
from support.data_set import user
from support.servers import serve, start_server

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers"):
    sys.modules[name] = None  # its import now fails
from adprior_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


def write_catalogue(path: Path, *lines: str) -> str:
    path.write_text("advertiser_id,name,aliases\n" + "".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.mark.triton
def test_a_refreshed_catalogue_is_served(bundle: Path, tmp_path: Path) -> None:
    new = write_catalogue(tmp_path / "new.csv", "7,Acme,", "8,Brand New Gmbh,BNG", "9,Kite,")
    output = tmp_path / "repository"
    arguments = ["build", "--bundle", str(bundle), "--catalogue", new, "--output", str(output)]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], check=True, timeout=60)
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


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["7,Acme,", "7,Kite,"], "row 1 (from 0) repeats advertiser_id 7 of row 0"),
        (["7,Acme,", "8,,"], "row 1 (from 0) has an empty name"),
        (["7,Acme Pets,", "8,Acme  Pets,"], "rows 0 and 1 (from 0), advertisers 7"),
        (["7,Acme,Kite", "8,Kite,"], "have the same name"),
        (["7.5,Acme,"], "advertiser_id holds double, expected int64"),
    ],
)
def test_a_bad_catalogue_is_refused_and_leaves_the_old_repository(
    bundle: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: list[str],
    message: str,
) -> None:
    new = write_catalogue(tmp_path / "new.csv", *lines)
    before = sorted(repository.rglob("*"))
    arguments = ["build", "--bundle", str(bundle), "--catalogue", new, "--output", str(repository)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(repository.rglob("*")) == before
    assert not [path for path in repository.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, which a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["model.onnx", "trie/offsets.npy", "tokenizer.json", "head.onnx"])
def test_a_corrupt_artefact_is_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    assert main(["build", "--bundle", str(copy), "--output", str(tmp_path / "out")]) == 2
    assert f"{name}: corrupt or swapped" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def reseal(bundle: Path, **changes: object) -> None:
    """Write the hashes of changed files into the manifest, and other changes."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    document["files"] = {name: hash_file(bundle / name) for name in document["files"]}
    path.write_text(json.dumps(document | changes))
    path.write_text(Manifest.load(path).sealed().to_json())


def test_a_trie_of_another_tokenizer_is_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, other = ([piece for piece, _ in vocabulary].index(letter) for letter in "AB")
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    reseal(copy)
    assert main(["build", "--bundle", str(copy), "--output", str(tmp_path / "out")]) == 2
    assert "the trie was made with another tokenizer" in capsys.readouterr().err


def test_a_head_of_another_catalogue_is_refused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reseal(copy, catalogue_lineage=["0123456789abcdef"], catalogue_fingerprint="0123456789abcdef")
    assert main(["build", "--bundle", str(copy), "--output", str(tmp_path / "out")]) == 2
    assert "fitted with catalogue" in capsys.readouterr().err
