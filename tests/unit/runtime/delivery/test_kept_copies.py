"""Repositories that ``adprior serve`` pulls: what is kept, for whom, and without the URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from adprior_runtime.delivery.kept_copies import default_cache, hold_copy
from adprior_runtime.delivery.store import Store
from adprior_runtime.delivery.store_errors import StoreUnavailableError
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from support.deliveries import Adprior, contents, write_bundle

LATEST = "latest"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def url(adprior: Adprior, first: Path, tmp_path: Path) -> str:
    adprior("push", first, tmp_path / "store")
    return f"file://{tmp_path / 'store'}"


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
