"""A warning of our packages fails a test; another package's, or a deprecation, does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[3] / "pyproject.toml"


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
def test_only_our_own_warnings_are_errors(
    tmp_path: Path, module: str, category: str, outcome: str
) -> None:
    (tmp_path / f"{module}.py").write_text(
        f"import warnings\ndef warn(): warnings.warn('careful', {category})\n"
    )
    test = tmp_path / "made_up.py"
    test.write_text(f"import {module}\ndef test_it(): {module}.warn()\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(CONFIGURATION)]
    command += ["--import-mode", "prepend"]  # the module lies beside the test
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(test)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert outcome in done.stdout, done.stdout
