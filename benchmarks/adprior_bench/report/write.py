"""Writing a report: all of its files at once, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adprior_bench.report.markdown import report_markdown
from adprior_bench.report.page import report_page
from adprior_bench.report.plain import plain
from adprior_bench.report.plots import draw
from adprior_bench.report.schema import Report
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_directory
from adprior_runtime.terminal.progress import track
from adprior_runtime.text.json_text import to_json

REPORT_FILE = "report.json"
"""Its presence marks the directory of an earlier report, which may be replaced."""


def require_own_directory(directory: Path) -> None:
    """Refuse a directory that holds anything but an earlier report.

    Raises:
        InvalidInputError: It is a file, or it holds something else.
    """
    if (
        directory.exists()
        and not (directory / REPORT_FILE).is_file()
        and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise InvalidInputError(
            f"--output {directory}: exists and is no earlier report (no {REPORT_FILE})"
        )


def write_report(report: Report, directory: Path) -> None:
    """Write ``report.json``, ``report.md``, ``report.html`` and a PNG for each plot.

    The page contains its plots; the Markdown file needs the PNGs beside it. An earlier report is
    replaced as a whole, with any other file in its directory.

    Raises:
        InvalidInputError: The directory holds something else.
    """
    shown: dict[str, Any] = plain(report)
    items = [item for section in shown["sections"] for item in section["content"]]
    plots = [item for item in items if item["kind"] != "table"]
    images = {plot["name"]: draw(plot) for plot in track(plots, desc="plots", unit="plot")}
    with replace_directory(directory, marker=REPORT_FILE) as fresh:
        for name, image in images.items():
            (fresh / f"{name}.png").write_bytes(image)
        document = to_json(shown, indent=2, ensure_ascii=False)
        (fresh / REPORT_FILE).write_text(document + "\n", encoding="utf-8")
        (fresh / "report.md").write_text(report_markdown(shown), encoding="utf-8")
        (fresh / "report.html").write_text(report_page(shown, images), encoding="utf-8")
