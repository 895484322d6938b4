"""The reports of ``adprior bench quality`` and ``adprior bench server`` that the page opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Final

from adprior_runtime.errors import InvalidInputError

PAGE: Final = "report.html"
"""The page in the directory that a benchmark wrote."""
_TITLE: Final = re.compile(r"<title>(.*?)</title>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report.

    Attributes:
        name: Its name in the page's addresses.
        title: Its title.
        path: The HTML file.
    """

    name: str
    title: str
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the page's list."""
        return {"name": self.name, "title": self.title}

    def read(self) -> bytes:
        """Return the page as it is now; a new run of the benchmark may have replaced it.

        Raises:
            InvalidInputError: The file cannot be read.
        """
        return _read(self.path)


def find_reports(paths: Sequence[Path]) -> dict[str, Report]:
    """Return the reports at these places, by name.

    Args:
        paths: Directories that a benchmark wrote, or pages.

    Raises:
        InvalidInputError: There is no report.
    """
    reports = {}
    for number, place in enumerate(paths, start=1):
        path = place / PAGE if place.is_dir() else place
        title = _TITLE.search(_read(path).decode("utf-8", errors="replace"))
        if title is None:
            raise InvalidInputError(f"--report {place}: found no HTML page with a title")
        name = f"report-{number}"
        text = " ".join(unescape(title[1]).split())
        reports[name] = Report(name=name, title=text or place.name, path=path)
    return reports


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"--report {path}: {error.strerror}; expected a directory that adprior bench quality "
            f"or server wrote with --output, or its {PAGE}"
        ) from error
