"""``adprior build --check REPO``: one line for each finding."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from adprior_build.repository.check.repository import check_repository
from adprior_runtime.text.json_text import to_json


def run_check(
    repository: Path, *, as_json: bool = False, allow_missing_engine: bool = False
) -> int:
    """Print what is wrong with a repository; return the exit code: 0 for nothing, else 2."""
    findings = check_repository(repository, allow_missing_engine=allow_missing_engine)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        print(to_json({"repository": str(repository), "findings": listed}, indent=2))
    else:
        for finding in findings:
            print(finding.line)
        if not findings:
            print(f"adprior build: {repository} · nothing found wrong")
    return 2 if findings else 0
