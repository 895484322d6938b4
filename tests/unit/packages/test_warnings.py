"""A warning from adprior's packages fails a test; others, and deprecations, do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.processes import run


@pytest.mark.parametrize(
    ("module", "category", "outcome"),
    [
        ("adprior_made_up", "UserWarning", "1 failed"),
        ("adprior_made_up", "ResourceWarning", "1 failed"),
        ("adprior_made_up", "FutureWarning", "1 passed, 1 warning"),
        ("somebody_elses", "UserWarning", "1 passed, 1 warning"),
        ("somebody_elses", "DeprecationWarning", "1 passed, 1 warning"),
    ],
)
def test_only_warnings_from_adprior_are_errors(
    tmp_path: Path, module: str, category: str, outcome: str
) -> None:
    (tmp_path / f"{module}.py").write_text(
        f"import warnings\ndef warn(): warnings.warn('careful', {category})\n"
    )
    test = tmp_path / "made_up.py"
    test.write_text(f"import {module}\ndef test_it(): {module}.warn()\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    # The module is in the test's folder, so pytest must add that to the import path.
    done = run(*command, "--import-mode", "prepend", test)
    assert outcome in done.stdout, done.stdout
