"""``adprior push`` and ``pull`` with a directory as the store: what moves, versions, rollback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from adprior_runtime.bundle import Bundle
from support.deliveries import KB, Adprior, contents, write_bundle, write_repository


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_repository_arrives_as_it_was(
    adprior: Adprior, first: Path, tmp_path: Path, prefix: str
) -> None:
    url = f"{prefix}{tmp_path / 'store'}"
    pushed = adprior("push", first, url)
    assert (pushed["kind"], pushed["previous"], pushed["active"]) == ("repository", None, True)
    target = tmp_path / "models" / "blue"
    pulled = adprior("pull", url, target)
    assert contents(target) == contents(first)
    assert "advertiser_retrieval/1" in contents(target)  # Triton needs it, though it is empty
    assert pulled["version"] == pushed["version"]
    assert pulled["bytes"] == pushed["bytes"]
    # Both models have the same files: each content moves once.
    assert pulled["fetched_bytes"] == pushed["sent_bytes"] < pushed["bytes"] * 0.6
    assert [path.name for path in target.parent.iterdir()] == ["blue"]


def test_a_bundle_arrives_as_it_was(adprior: Adprior, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "model.pyc").write_bytes(b"compiled")
    pushed = adprior("push", bundle, tmp_path / "store")
    assert pushed["bundle_id"] == Bundle.open(bundle).manifest.bundle_id
    adprior("pull", tmp_path / "store", tmp_path / "pulled")
    assert Bundle.open(tmp_path / "pulled").manifest.bundle_id == pushed["bundle_id"]
    assert not (tmp_path / "pulled" / "__pycache__").exists()


def test_a_new_bundle_moves_only_what_changed(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    adprior("push", first, store)
    adprior("pull", store, target)
    model = target / "llm_engine" / "1" / "bundle" / "model.onnx"
    inode = model.stat().st_ino
    pushed = adprior("push", second, store)
    assert 3 * KB < pushed["sent_bytes"] < 10 * KB  # the head and the manifest
    pulled = adprior("pull", store, target)
    assert pulled["fetched_bytes"] == pushed["sent_bytes"]
    assert contents(target) == contents(second)
    assert model.stat().st_ino == inode  # linked, not copied


def test_the_same_again_moves_nothing(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    version = adprior("push", first, store)["version"]
    again = adprior("push", first, store)
    assert (again["version"], again["sent_bytes"]) == (version, 0)
    adprior("pull", store, target)
    inode = target.stat().st_ino
    pulled = adprior("pull", store, target)
    assert (pulled["changed"], pulled["fetched_bytes"]) == (False, 0)
    assert target.stat().st_ino == inode
    assert "had already" in adprior.text("pull", store, target)


def test_a_changed_or_additional_file_is_put_right(
    adprior: Adprior, first: Path, tmp_path: Path
) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    adprior("push", first, store)
    adprior("pull", store, target)
    (target / "tokenizer" / "config.pbtxt").write_text('name: "TOKENIZER"\n')  # the same length
    (target / "tokenizer" / "config.pbtxt.orig").write_text("a leftover")
    assert adprior("pull", store, target)["changed"]
    assert contents(target) == contents(first)


def test_one_command_goes_back(adprior: Adprior, first: Path, second: Path, tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    good, bad = (adprior("push", each, store)["version"] for each in (first, second))
    back = adprior("push", "--activate", "previous", store)
    assert (back["version"], back["previous"]) == (good, bad)
    adprior("pull", store, target)
    assert contents(target) == contents(first)
    listed = adprior("push", "--list", store)
    assert [(each["version"], each["active"]) for each in listed] == [(bad, False), (good, True)]
    assert "no version was active before" in adprior.error("push", "--activate", "previous", store)
    text = adprior.text("push", "--list", store)
    assert text.splitlines()[2].split()[0] == good[:12]
    assert text.splitlines()[2].endswith("active")
    assert "Pulls of latest now get" in adprior.text("push", "--activate", bad[:8], store)


def test_a_version_that_was_left_is_not_the_previous_one(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    third = write_repository(tmp_path / "third", seed=3)
    good, bad = (adprior("push", each, store)["version"] for each in (first, second))
    assert adprior("push", "--activate", "previous", store)["version"] == good
    also_bad = adprior("push", third, store)["version"]
    back = adprior("push", "--activate", "previous", store)
    assert (back["version"], back["previous"]) == (good, also_bad)
    error = adprior.error("push", "--activate", "previous", store)
    assert error.endswith("no version was active before the active one; name one of `--list`")
    # Whoever names it gets it; then the good one is the one before.
    adprior("push", "--activate", bad, store)
    adprior("push", third, store, "--keep-active")
    assert adprior("push", "--activate", "previous", store)["version"] == good


def test_a_tag_without_the_order_has_no_previous_version(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for each in (first, second):
        adprior("push", each, store)
    tag = store / "tags" / "latest.json"
    document = json.loads(tag.read_text())
    del document["before"]
    tag.write_text(json.dumps(document))
    assert "no version was active before" in adprior.error("push", "--activate", "previous", store)
    assert len(adprior("push", "--list", store)) == 2


def test_a_version_is_found_by_its_names(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    one = adprior("push", first, store)
    two = adprior("push", second, store, "--tag", "canary", "--keep-active")
    assert two["active"] is False
    for name in ("latest", one["version"], one["version"][:6], one["bundle_id"]):
        assert adprior("pull", store, target, "--version", name)["version"] == one["version"]
    assert "no such version: 'canary'" in adprior.error(
        "pull", store, target, "--version", "canary"
    )
    adprior("push", "--activate", two["version"][:6], store, "--tag", "canary")
    for name in ("canary", two["version"]):
        assert adprior("pull", store, target, "--version", name)["version"] == two["version"]
    assert adprior("pull", store, target)["version"] == one["version"]


def test_a_bundles_id_that_fits_two_versions_is_refused(
    adprior: Adprior, first: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    bundle_id = adprior("push", first, store)["bundle_id"]
    (first / "tokenizer" / "config.pbtxt").write_text('name: "tokenizer" # tuned\n')
    assert adprior("push", first, store)["bundle_id"] == bundle_id
    error = adprior.error("pull", store, tmp_path / "target", "--version", bundle_id)
    assert f"2 versions fit: '{bundle_id}'" in error


def test_a_link_stays_and_points_to_the_new_directory(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path
) -> None:
    store, link = tmp_path / "store", tmp_path / "current"
    adprior("push", first, store)
    adprior("pull", store, tmp_path / "target")
    link.symlink_to(tmp_path / "target")
    adprior("push", second, store)
    adprior("pull", store, link)
    assert link.is_symlink()
    assert contents(link) == contents(second)


def test_what_is_pulled_is_closed_to_others(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        adprior("push", first, tmp_path / "store")
        adprior("pull", tmp_path / "store", tmp_path / "target")
    finally:
        os.umask(before)
    for directory in (tmp_path / "store", tmp_path / "target"):
        files = [path for path in directory.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if path.stat().st_mode & 0o002]
