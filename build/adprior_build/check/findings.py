"""What a check has to say: where, what was found there, and what was expected."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


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

    @property
    def line(self) -> str:
        """The finding as one line."""
        return " ".join(f"{self.file}: found {self.found}, expected {self.expected}".split())
