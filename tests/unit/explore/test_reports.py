from __future__ import annotations

from pathlib import Path

import pytest

from adprior_explore.reports import find_reports
from adprior_runtime.errors import InvalidInputError


def test_a_directory_and_a_page_are_reports(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<!doctype html>\n<title>\n The\n title </title>")
    found = find_reports([tmp_path, page])
    assert [report.title for report in found.values()] == ["The title", "The title"]
    assert list(found) == ["report-1", "report-2"]
    page.write_text("<title>newer</title>")
    assert found["report-1"].read() == b"<title>newer</title>"


@pytest.mark.parametrize("content", [None, "no title", "\0"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "report.html").write_text(content)
    with pytest.raises(InvalidInputError, match=r"--report .*(expected a dir|a title)"):
        find_reports([tmp_path])
