"""``adprior push`` and ``pull`` with a real S3 server, SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.bundle import hash_file
from adprior_runtime.delivery.store import Store, blob_name, open_store
from adprior_runtime.delivery.version import Blob
from support.deliveries import Adprior, contents, write_bundle, write_repository
from support.processes import await_true
from support.s3_server import BUCKET, S3Server, needs_s3, running_s3

pytestmark = needs_s3
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def url(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty place in the bucket, for the user who writes."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name}"


def test_versions_and_back(
    adprior: Adprior, first: Path, second: Path, tmp_path: Path, url: str
) -> None:
    target = tmp_path / "target"
    assert adprior("push", "--list", url) == []
    one = adprior("push", first, url)
    adprior("pull", url, target)
    assert contents(target) == contents(first)
    two = adprior("push", second, url)
    assert 0 < two["sent_bytes"] < one["sent_bytes"] / 10
    assert adprior("pull", url, target)["fetched_bytes"] == two["sent_bytes"]
    assert contents(target) == contents(second)
    assert adprior("push", first, url)["sent_bytes"] == 0
    assert adprior("push", "--activate", "previous", url)["version"] == two["version"]
    adprior("push", "--activate", one["version"][:8], url)
    adprior("pull", url, target)
    assert contents(target) == contents(first)


def test_a_prune(adprior: Adprior, first: Path, second: Path, tmp_path: Path, url: str) -> None:
    third = write_repository(tmp_path / "third", seed=3)
    gone, *_ = (adprior("push", each, url)["version"] for each in (first, second, third))
    options = ["--prune", "1", "--grace", "0.001s", url]
    before = len(open_store(url).list("blobs"))
    versions: list[str] = []

    def has_gone() -> bool:
        # S3's times are seconds: what was written in the second of its condemnation stays.
        versions.extend(adprior("push", *options)["versions"])
        return len(open_store(url).list("blobs")) == before - 2

    await_true(has_gone, poll_s=0.5)
    assert versions == [gone]
    assert [each["version"] == gone for each in adprior("push", "--list", url)] == [False, False]
    adprior("push", "--activate", "previous", url)
    adprior("pull", url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(second)
    assert adprior("push", first, url)["version"] == gone
    adprior("pull", url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(first)


def test_a_large_file_moves_in_parts_by_s3_and_http(
    adprior: Adprior, tmp_path: Path, s3: S3Server, url: str
) -> None:
    large = write_bundle(tmp_path / "large", model_bytes=101 * MIB)  # s3fs sends it in parts
    adprior("push", large, url)
    adprior("pull", url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(large)
    web = url.replace(f"s3://{BUCKET}", s3.web_url)
    assert adprior("pull", web, tmp_path / "other")["fetched_bytes"] > 101 * MIB
    assert contents(tmp_path / "other") == contents(large)


def test_a_file_that_changes_while_it_is_pushed(
    adprior: Adprior, first: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Store.upload

    def change_then_upload(self: Store, source: Path, *rest: Any) -> None:
        if source.name == "head.onnx":
            source.write_bytes(source.read_bytes()[::-1])
        upload(self, source, *rest)

    monkeypatch.setattr(Store, "upload", change_then_upload)
    head = first / "llm_engine" / "1" / "bundle" / "head.onnx"
    blob = Blob(hash_file(head), head.stat().st_size)
    assert "changed while it was pushed" in adprior.error("push", first, url)
    assert open_store(url).size(blob_name(blob)) is None


def test_a_blob_is_replaced_by_force(adprior: Adprior, first: Path, url: str) -> None:
    adprior("push", first, url)
    head = first / "llm_engine" / "1" / "bundle" / "head.onnx"
    name = blob_name(Blob(hash_file(head), head.stat().st_size))
    store = open_store(url)
    store.write(name, bytes(head.stat().st_size))
    adprior("push", first, url, "--force")
    assert store.read(name) == head.read_bytes()
    assert [each for each in store._files.find(store._root) if ".new-" in each] == []


def test_a_user_who_only_reads(
    adprior: Adprior,
    first: Path,
    tmp_path: Path,
    s3: S3Server,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adprior("push", first, url)
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    assert f"{url}/tags/latest.json: no permission" in adprior.error("push", first, url)
    adprior("pull", url, tmp_path / "target")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "no permission" in adprior.error("pull", url, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_there_is_no_such_bucket(adprior: Adprior, first: Path, url: str) -> None:
    error = adprior.error("push", first, "s3://other-bucket/models")
    assert "s3://other-bucket/models/" in error
    assert "bucket" in error.partition("models/")[2]


def test_nobody_answers(
    adprior: Adprior, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    error = adprior.error("pull", url, tmp_path / "target")
    assert f'{url}/tags/latest.json: Could not connect to the endpoint URL: "http://127.0' in error
    assert not (tmp_path / "target").exists()
