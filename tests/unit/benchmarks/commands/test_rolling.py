from __future__ import annotations

from pathlib import Path

import pytest

from adprior_runtime.cli import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--servers", "1"], "--servers: found 1, expected 2 or more"),
        ([], "which --old has too; expected another one"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny_repository: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    same = ["--old", str(tiny_repository), "--new", str(tiny_repository)]
    assert main(["bench", "rolling", *same, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_directory_that_is_no_repository_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "rolling", "--old", str(tmp_path), "--new", str(tmp_path)]) == 2
    assert (
        f"{tmp_path}: not a model repository that `adprior build` made" in capsys.readouterr().err
    )
