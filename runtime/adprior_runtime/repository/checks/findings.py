"""A finding of the check: a file, what was found in it, and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Level(StrEnum):
    """The extent of a check; see `adprior_runtime.repository.checker`."""

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        file: The faulty file, relative to the repository.
        found: What is in the file, in words.
        expected: What should be in the file, with the reason if it is not obvious.
        remedy: What to do, for commands that refuse the repository.
        may_pass: Whether another start may succeed: while a repository is copied, files are missing
            and others belong to another bundle.
    """

    file: str
    found: str
    expected: str
    remedy: str = ""
    may_pass: bool = False

    @classmethod
    def from_error(cls, file: str, error: Exception, place: Path, expected: str) -> Finding:
        """Return a finding with an error's message: ``PLACE: FOUND, expected EXPECTED``.

        The place is left out. ``expected`` is used if the message lacks its second half.
        """
        found, _, stated = str(error).removeprefix(f"{place}: ").partition(", expected ")
        return cls(file, found, stated or expected)

    @property
    def line(self) -> str:
        """The finding as one line."""
        return " ".join(f"{self.file}: found {self.found}, expected {self.expected}".split())
