"""Faults of ``adprior push`` and ``pull``: one line each, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from adprior_runtime.delivery.push import push
from adprior_runtime.delivery.staging import Staging
from adprior_runtime.delivery.store import Store, _DirectoryStore, blob_name, open_store
from adprior_runtime.delivery.version import Blob
from adprior_runtime.errors import InvalidInputError
from support.deliveries import KB, Adprior, contents
from support.small_disk import small_disk

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def store(adprior: Adprior, first: Path, tmp_path: Path) -> Path:
    adprior("push", first, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(params=[True, False], ids=["old version", "nothing"])
def target(
    request: pytest.FixtureRequest, adprior: Adprior, store: Path, second: Path, tmp_path: Path
) -> Iterator[Path]:
    """A target that must stay as it is, or absent; the first version is active."""
    place = tmp_path / "place" / "target"
    if request.param:
        adprior("push", second, store)
        adprior("pull", store, place)
        adprior("push", "--activate", "previous", store)
        shutil.copytree(place, tmp_path / "before")
    yield place
    if request.param:
        assert contents(place) == contents(tmp_path / "before")
    else:
        assert not place.exists()


def _head_blob(store: Path, repository: Path) -> Path:
    """Return the blob that only this repository has."""
    head = repository / "tokenizer" / "1" / "bundle" / "head.onnx"
    sha256 = hashlib.sha256(head.read_bytes()).hexdigest()
    return store / "blobs" / sha256[:2] / sha256


def test_a_missing_blob(adprior: Adprior, store: Path, first: Path, target: Path) -> None:
    blob = _head_blob(store, first)
    blob.unlink()
    assert adprior.error("pull", store, target) == f"adprior pull: {blob}: not found"


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda _data: b""])
def test_a_corrupt_blob(
    adprior: Adprior,
    store: Path,
    first: Path,
    target: Path,
    change: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adprior_runtime.delivery.fetch._WAITS_S", ())
    blob = _head_blob(store, first)
    blob.write_bytes(change(blob.read_bytes()))
    error = adprior.error("pull", store, target)
    assert error.startswith(f"adprior pull: {blob}: ")
    assert ("its name says" in error) or ("expected 3,000" in error)


def test_force_repairs_a_store(adprior: Adprior, store: Path, first: Path, tmp_path: Path) -> None:
    blob = _head_blob(store, first)
    blob.write_bytes(bytes(blob.stat().st_size))
    assert "push --force" in adprior.error("pull", store, tmp_path / "target")
    assert adprior("push", first, store)["sent_bytes"] == 0
    assert adprior("push", first, store, "--force")["sent_bytes"] > 200 * KB
    adprior("pull", store, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(first)


def test_an_edited_version(adprior: Adprior, store: Path, target: Path) -> None:
    for version in (store / "versions").iterdir():
        version.write_text(version.read_text().replace("config.pbtxt", "evil.pbtxt"))
    assert "versions/" in (error := adprior.error("pull", store, target))
    assert "corrupt or edited" in error


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "", "a\\b", "a\nb", "tokenizer"]
)
def test_a_path_that_escapes(adprior: Adprior, store: Path, target: Path, name: str) -> None:
    def add(document: dict[str, Any]) -> None:
        document["files"][name] = next(iter(document["files"].values()))

    _forge(store, add)
    error = adprior.error("pull", store, target)
    assert "not a version of adprior" in error
    assert "impossible path" in error or "is a file and a directory" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: each.update(format="adprior-delivery/2"), "format 'adprior-delivery/2'"),
        (lambda each: each.update(kind="image"), "'image' is not a valid Kind"),
        (lambda each: each.pop("files"), "'files'"),
        (lambda each: each["files"].clear(), "a repository without tokenizer/1/bundle/manifest"),
        (lambda each: each["empty_directories"].append("../x"), "impossible path '../x'"),
        (lambda each: next(iter(each["files"].values())).update(sha256="../x"), "64 hex digits"),
        (lambda each: next(iter(each["files"].values())).update(size=-1), "a whole number"),
    ],
)
def test_a_version_that_is_none(
    adprior: Adprior,
    store: Path,
    target: Path,
    change: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    _forge(store, change)
    assert message in adprior.error("pull", store, target)


def _forge(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Make a changed version the active one, under its true hash."""
    tag = json.loads((store / "tags" / "latest.json").read_text())
    document = json.loads((store / "versions" / f"{tag['active']}.json").read_text())
    change(document)
    data = json.dumps(document).encode()
    tag["active"] = hashlib.sha256(data).hexdigest()
    (store / "versions" / f"{tag['active']}.json").write_bytes(data)
    (store / "tags" / "latest.json").write_text(json.dumps(tag))


@pytest.mark.parametrize("text", ["", "[]", '{"active": "../x", "entries": []}', "[" * 10**5])
def test_a_tag_that_is_none(adprior: Adprior, store: Path, target: Path, text: str) -> None:
    (store / "tags" / "latest.json").write_text(text)
    assert "latest.json: not a tag of adprior" in adprior.error("pull", store, target)


def test_a_disk_that_is_too_small(adprior: Adprior, store: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 100 * KB) as limit:
        limit()
        error = adprior.error("pull", store, disk / "target")
        assert error.startswith(f"adprior pull: {disk}: ")
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up(
    adprior: Adprior, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write meanwhile, so the free space that was found is not there."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10**9, 0, 10**9))
    disk = tmp_path / "disk"
    with small_disk(disk, 100 * KB) as limit:
        limit()
        error = adprior.error("pull", store, disk / "target")
        assert error in {
            f"adprior pull: {disk}: No space left on device",
            f"adprior pull: {disk}: File too large",
        }
        assert list(disk.iterdir()) == []


def test_a_store_that_fills_up(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 100 * KB) as limit:
        limit()
        error = adprior.error("push", first, disk / "store")
        assert error.endswith((": No space left on device", ": File too large"))
        files = [path for path in (disk / "store").rglob("*") if path.is_file()]
        assert {path.parents[1].name for path in files} <= {"blobs"}
        assert not [path for path in files if path.name.startswith(".")]


def test_a_target_that_is_not_ours(adprior: Adprior, store: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    error = adprior.error("pull", store, tmp_path / "home")
    assert "exists and is not an earlier output" in error
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]
    assert "is a file" in adprior.error("pull", store, tmp_path / "home" / "letter.txt")


def test_two_pulls_into_one_directory(adprior: Adprior, store: Path, tmp_path: Path) -> None:
    with Staging(tmp_path / "target"):
        error = adprior.error("pull", store, tmp_path / "target")
    assert "another pull into this directory runs" in error


def test_a_staging_directory_of_somebody_else(
    adprior: Adprior, store: Path, tmp_path: Path
) -> None:
    (tmp_path / ".target.pull").mkdir()
    (tmp_path / ".target.pull").chmod(0o777)
    error = adprior.error("pull", store, tmp_path / "target")
    assert error.endswith(".target.pull: another user can write here; remove it, and pull again")


def test_a_file_that_changes_while_it_is_pushed(
    adprior: Adprior, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = _DirectoryStore.upload

    def change_then_upload(self: _DirectoryStore, source: Path, *rest: Any) -> None:
        if source.name == "head.onnx":
            source.write_bytes(source.read_bytes()[::-1])
        upload(self, source, *rest)

    monkeypatch.setattr(_DirectoryStore, "upload", change_then_upload)
    blob = _head_blob(tmp_path / "store", first)
    error = adprior.error("push", first, tmp_path / "store")
    assert error.endswith("head.onnx: changed while it was pushed; push again")
    assert not blob.exists()
    assert not (tmp_path / "store" / "tags").exists()


@pytest.mark.parametrize("kind", ["a directory", "objects"])
def test_a_file_that_changes_leaves_the_good_blob(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    if kind == "objects":
        store = Store(fsspec.filesystem("memory"), str(tmp_path), "memory://store")
    push(first, store, "latest")
    head = first / "llm_engine" / "1" / "bundle" / "head.onnx"
    good = head.read_bytes()
    name = blob_name(Blob(hashlib.sha256(good).hexdigest(), len(good)))
    upload = type(store).upload

    def change_then_upload(self: Store, source: Path, *rest: Any) -> None:
        if source.name == "head.onnx":
            source.write_bytes(good[::-1])
        upload(self, source, *rest)

    with monkeypatch.context() as changing:
        changing.setattr(type(store), "upload", change_then_upload)
        with pytest.raises(InvalidInputError, match=r"head\.onnx: changed while it was pushed"):
            push(first, store, "latest", force=True)
    assert store.read(name) == good
    for each in first.rglob("head.onnx"):
        each.write_bytes(good)
    store.write(name, good[::-1])
    push(first, store, "latest", force=True)
    assert store.read(name) == good


def test_a_leftover_of_an_earlier_process_with_this_id(
    adprior: Adprior, store: Path, tmp_path: Path
) -> None:
    """In a container, every `adprior pull` is process 1."""
    leftover = tmp_path / f".target.new-{os.getpid()}-killed"
    of_a_living_process = tmp_path / f".target.new-{os.getppid()}-alive"
    leftover.mkdir()
    of_a_living_process.mkdir()
    adprior("pull", store, tmp_path / "target")
    assert not leftover.exists()
    assert of_a_living_process.exists()


def test_a_corrupt_repository_is_not_pushed(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    head = first / "llm_engine" / "1" / "bundle" / "head.onnx"
    head.write_bytes(head.read_bytes()[::-1])
    assert "head.onnx: corrupt or swapped" in adprior.error("push", first, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_pushed(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    url = tmp_path / "store"
    assert "neither a bundle nor a model repository" in adprior.error("push", tmp_path, url)
    (first / "link").symlink_to(tmp_path)
    assert "a link to a directory" in adprior.error("push", first, url)
    (first / "link").unlink()
    (first / "a\tb").write_text("")
    assert "impossible path 'a\\tb'" in adprior.error("push", first, url)
    assert not url.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "URL"), "expected REPOSITORY and URL"),
        (("push", "DIRECTORY", "URL", "--list"), "take the URL only"),
        (("push", "URL", "--list", "--force"), "go with a REPOSITORY"),
        (("push", "DIRECTORY", "URL", "--tag", "../x"), "tag '../x': expected letters"),
        (("push", "--activate", "abcdef", "URL"), "no such version: 'abcdef'; there is none"),
        (("pull", "URL", "DIRECTORY"), "no version was pushed here"),
        (("pull", "ftp://host/x", "DIRECTORY"), "expected a directory or one of file://"),
        (("pull", "s3://", "DIRECTORY"), "expected s3://, a place, and a path only"),
        (("pull", "https://host/x?key=secret", "DIRECTORY"), "https://host/x: expected"),
        (("pull", "http://[::1/x", "DIRECTORY"), "'http://[::1/x': a malformed URL"),
        (("pull", "s3://[x/y", "DIRECTORY"), "'s3://[x/y': a malformed URL"),
        (("pull", "ftp://[x/y", "DIRECTORY"), "'ftp://[x/y': a malformed URL"),
        (("pull", "http://me:se/secret@[::1/x?secret", "DIRECTORY"), "'http://[::1/x': a malf"),
        (("pull", "http://me:secret@host:none/x", "DIRECTORY"), "'http://host:none/x': a malf"),
    ],
)
def test_wrong_options(
    adprior: Adprior, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"URL": str(tmp_path / "store"), "DIRECTORY": str(tmp_path / "directory")}
    error = adprior.error(*(places.get(each, each) for each in arguments))
    assert message in error
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("az://b/x", "adlfs")]
)
def test_a_missing_package_is_named(
    adprior: Adprior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = adprior.error("pull", url, tmp_path / "target")
    assert error == f"adprior pull: {url}: needs the package {package}: pip install {package}"


def test_a_file_in_the_place_of_the_store(adprior: Adprior, first: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    error = adprior.error("push", first, tmp_path / "store")
    assert error == f"adprior push: {tmp_path / 'store'}/tags/latest.json: Not a directory"
