"""Repositories that ``adprior serve`` pulls: what is kept, for whom, and without the URL."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.delivery import fetch
from adprior_runtime.delivery.kept_copies import default_cache, hold_copy
from adprior_runtime.delivery.store import Store
from adprior_runtime.delivery.store_errors import StoreRefusedError, StoreUnavailableError
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from support.deliveries import Adprior, contents, write_bundle, write_repository

LATEST = "latest"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def url(adprior: Adprior, first: Path, tmp_path: Path) -> str:
    adprior("push", first, tmp_path / "store")
    return f"file://{tmp_path / 'store'}"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_WAITS_S", ())


def _refused(*_: object) -> bytes:
    raise StoreRefusedError("s3://models: no permission")


def _unreachable(*_: object) -> bytes:
    raise StoreUnavailableError("s3://models: no route")


def test_a_server_keeps_its_version_while_another_gets_a_newer_one(
    adprior: Adprior, url: str, first: Path, second: Path, cache: Path
) -> None:
    with hold_copy(url, LATEST, cache) as old:
        adprior("push", second, url)
        with hold_copy(url, LATEST, cache) as new:
            assert contents(old.directory) == contents(first)
            assert contents(new.directory) == contents(second)
            model = "tokenizer/1/bundle/model.onnx"
            assert (old.directory / model).samefile(new.directory / model)
        assert old.directory.is_dir()
    with hold_copy(url, LATEST, cache) as again:
        assert again == new
        assert not old.directory.exists()  # nobody holds it


def test_two_servers_share_a_copy(url: str, cache: Path) -> None:
    with hold_copy(url, LATEST, cache) as one:
        inode = one.directory.stat().st_ino
        with hold_copy(url, LATEST, cache) as other:
            assert other == one
            assert other.directory.stat().st_ino == inode


def test_without_the_url_the_last_version_is_served(
    url: str, first: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(Store, "read", _unreachable)
        with (
            pytest.raises(EnvironmentProblemError, match="no route"),
            hold_copy(url, LATEST, cache),
        ):
            pass
    with hold_copy(url, LATEST, cache) as before:
        assert before.problem == ""
    monkeypatch.setattr(Store, "read", _unreachable)
    with hold_copy(url, LATEST, cache) as copy:
        assert copy.problem == "s3://models: no route"
        assert copy.directory == before.directory
        assert contents(copy.directory) == contents(first)


@pytest.mark.parametrize("part", ["blobs/", "versions/"])
def test_without_the_newest_version_the_last_one_is_served(
    adprior: Adprior,
    url: str,
    first: Path,
    second: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """The tag can be read."""
    with hold_copy(url, LATEST, cache) as before:
        pass
    adprior("push", second, url)
    read = Store.read

    def read_some(self: Store, name: str, *rest: Any) -> bytes:
        return _unreachable() if name.startswith(part) else read(self, name, *rest)

    monkeypatch.setattr(Store, "read", read_some)
    for _ in range(2):
        with hold_copy(url, LATEST, cache) as copy:
            assert copy.problem == "s3://models: no route"
            assert copy.version_id == before.version_id
            assert contents(copy.directory) == contents(first)
    monkeypatch.setattr(Store, "read", _refused)
    with pytest.raises(StoreRefusedError, match="no permission"), hold_copy(url, LATEST, cache):
        pass


def test_two_copies_at_most_are_kept(
    adprior: Adprior, url: str, first: Path, second: Path, tmp_path: Path, cache: Path
) -> None:
    third = write_repository(tmp_path / "third", seed=3)
    names = [adprior("push", each, url)["version"] for each in (first, second, third)]
    directories = []
    for name in names:
        with hold_copy(url, name, cache) as copy:
            directories.append(copy.directory)
    assert [each.is_dir() for each in directories] == [False, True, True]
    assert not list(cache.glob("*/.*"))


def test_a_copy_that_another_server_removes_is_skipped(
    adprior: Adprior, url: str, second: Path, cache: Path
) -> None:
    with hold_copy(url, LATEST, cache) as old:
        pass
    adprior("push", second, url)
    # A link in the copy is an error for whoever lists it.
    (old.directory / "link").symlink_to(cache)
    with old.directory.with_name(f"{old.directory.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with hold_copy(url, LATEST, cache) as new:
            assert contents(new.directory) == contents(second)


def test_a_damaged_copy_is_repaired(url: str, first: Path, cache: Path) -> None:
    with hold_copy(url, LATEST, cache) as copy:
        pass
    (copy.directory / "tokenizer" / "config.pbtxt").write_text("damaged")
    with hold_copy(url, LATEST, cache) as copy:
        assert contents(copy.directory) == contents(first)


def test_a_bundle_is_not_served(adprior: Adprior, tmp_path: Path, cache: Path) -> None:
    adprior("push", write_bundle(tmp_path / "bundle"), tmp_path / "store")
    with (
        pytest.raises(InvalidInputError, match="has a bundle, expected a repository"),
        hold_copy(str(tmp_path / "store"), LATEST, cache),
    ):
        pass


def test_a_cache_that_cannot_be_made(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InvalidInputError, match="choose a directory with --cache"),
        hold_copy(url, LATEST, tmp_path / "file"),
    ):
        pass


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/models")
    assert default_cache() == Path("/var/cache/models/adprior")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/adprior")
