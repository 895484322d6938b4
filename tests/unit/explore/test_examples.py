from __future__ import annotations

from pathlib import Path

import pytest

from adprior_explore.examples import read_examples
from adprior_runtime.errors import InvalidInputError
from support.client_calls import SECRET


def test_without_files_there_is_one_user_without_a_history() -> None:
    (example,) = read_examples([]).values()
    assert example.to_json() == {"name": "no_history", "title": "no history"}
    assert example.subject.document["history"] == []


def test_a_file_that_is_no_context_is_refused_without_its_values(tmp_path: Path) -> None:
    path = tmp_path / "user.json"
    path.write_text(f'{{"as_of": "{SECRET}"}}')
    with pytest.raises(InvalidInputError, match=r"user\.json: as_of: ") as caught:
        read_examples([path])
    assert SECRET not in str(caught.value)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "user.json", tmp_path / "other" / "user.json"]
    for path in paths:
        path.write_text('{"as_of": "2024-05-31"}')
    with pytest.raises(InvalidInputError, match="two files are named user"):
        read_examples(paths)
