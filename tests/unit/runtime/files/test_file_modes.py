from __future__ import annotations

import os
from pathlib import Path

import pytest

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import check_private, find_writable, read_token

TOKEN = "0123456789abcdef"


def _write(path: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_token(_write(tmp_path / "token", f"{TOKEN}\n")) == TOKEN


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o660, 0o620])
def test_a_file_that_others_could_read_or_replace_is_refused(tmp_path: Path, mode: int) -> None:
    path = _write(tmp_path / "token", mode=mode)
    with pytest.raises(InvalidInputError, match=rf"mode {mode:04o} .*: chmod 600 {path}"):
        read_token(path)


@pytest.mark.parametrize(("owner", "allowed"), [(0, True), (os.geteuid() or 4711, False)])
def test_a_group_may_read_what_root_has_mounted_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, *, allowed: bool
) -> None:
    path = _write(tmp_path / "token", mode=0o440)
    found = path.stat()
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    monkeypatch.setattr(Path, "stat", lambda _: os.stat_result((*found[:4], owner, *found[5:]), {}))
    if allowed:
        check_private(path)
    else:
        with pytest.raises(InvalidInputError, match="mode 0440"):
            check_private(path)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "token")
    found = path.stat()
    monkeypatch.setattr(Path, "stat", lambda _: os.stat_result((*found[:4], 4712, *found[5:]), {}))
    with pytest.raises(InvalidInputError, match="belongs to user 4712, who could replace it"):
        check_private(path)


@pytest.mark.parametrize("text", ["", "short", "with space 0123456789", "a:b=c,0123456789abc"])
def test_a_wrong_token_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path / "token", text)
    with pytest.raises(InvalidInputError, match="expected one token, 16 to 1024") as caught:
        read_token(path)
    assert not text or text not in str(caught.value).replace(str(path), "")


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        check_private(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="not a file"):
        check_private(tmp_path)


def test_a_file_that_everyone_may_write_is_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert find_writable(tmp_path) is None
    path = _write(tmp_path / "model" / "model.py", mode=0o646)
    assert find_writable(tmp_path) == path


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    repository, current = tmp_path / "blue", tmp_path / "current"
    repository.mkdir()
    current.symlink_to(repository)
    assert find_writable(current) is None
    repository.chmod(0o777)
    assert find_writable(current) == repository
