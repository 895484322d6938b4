"""What a check has to say: where, what was found there, and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        file: Where it is, relative to the repository.
        found: What is there, in words.
        expected: What should be, and why where that is not plain.
    """

    file: str
    found: str
    expected: str

    @classmethod
    def from_error(cls, file: str, error: Exception, place: Path, expected: str) -> Finding:
        """Return the finding that an error of ours is.

        Args:
            file: Where it is, relative to the repository.
            error: ``PLACE: FOUND, expected EXPECTED``, or without the second half.
            place: With which it may begin.
            expected: What should be, where the error does not say.
        """
        found, _, told = str(error).removeprefix(f"{place}: ").partition(", expected ")
        return cls(file, found, told or expected)

    @property
    def line(self) -> str:
        """The finding as one line."""
        return " ".join(f"{self.file}: found {self.found}, expected {self.expected}".split())
