"""docs/tutorial.md as a notebook: the same text, the same code, without outputs.

``python -m support.tutorial``, run in ``tests/``, writes docs/tutorial.ipynb again after a change
of the page.
"""

from __future__ import annotations

import re
from typing import Any, Final

import nbformat

from support.paths import ROOT

PAGE: Final = ROOT / "docs" / "tutorial.md"
NOTEBOOK: Final = ROOT / "docs" / "tutorial.ipynb"
_BLOCK: Final = re.compile(
    r"^```(bash|python)\n(.*?)\n```\n(?:\n```\n(.*?)```\n)?", re.MULTILINE | re.DOTALL
)
_PICTURE: Final = re.compile(r"^!\[.*?\]\(.*?\)\n\n?", re.MULTILINE)


def tutorial_notebook() -> Any:
    """Return the page's notebook; a block and what it printed become one cell of code."""
    text = PAGE.read_text(encoding="utf-8")
    cells: list[Any] = []
    place = 0
    for block in _BLOCK.finditer(text):
        _add_text(cells, text[place : block.start()])
        language, code = block.group(1, 2)
        cells.append(nbformat.v4.new_code_cell(f"%%bash\n{code}" if language == "bash" else code))
        place = block.end()
    _add_text(cells, text[place:])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # random ids would differ each time
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def shown_outputs() -> list[str]:
    """Return the output that the page shows after each block, which may be empty."""
    return [each[3] or "" for each in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def _add_text(cells: list[Any], text: str) -> None:
    if text := _PICTURE.sub("", text).strip():
        cells.append(nbformat.v4.new_markdown_cell(text))


if __name__ == "__main__":
    nbformat.write(tutorial_notebook(), NOTEBOOK)
