"""The users that the page offers to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adprior_client.cli.documents import read_user
from adprior_client.cli.json_document import parse_json
from adprior_client.user_context import CheckedContext, user_to_json
from adprior_explore.subject import Subject
from adprior_runtime.errors import AdpriorError, InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One user.

    Attributes:
        name: Its name in the page's addresses.
        title: Its name for people.
        subject: The context.
    """

    name: str
    title: str
    subject: Subject = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the page's list."""
        return {"name": self.name, "title": self.title}


def read_examples(paths: Sequence[Path]) -> dict[str, Example]:
    """Return the users in files, by name; without files one user about whom nothing is known.

    Raises:
        InvalidInputError: A file is unreadable or no user context, or two have the same name.
    """
    if not paths:
        today = datetime.now(UTC).date().isoformat()
        return _by_name([_example("no_history", {"profile": {}, "history": [], "as_of": today})])
    return _by_name([_read(path) for path in paths])


def _read(path: Path) -> Example:
    raw = read_user(str(path))
    try:
        return _example(path.stem, parse_json(raw, str(path)).value)
    except AdpriorError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _example(name: str, document: dict[str, Any]) -> Example:
    subject = Subject(document=document, raw=CheckedContext(user_to_json(document)))
    return Example(name=name, title=name.replace("_", " "), subject=subject)


def _by_name(examples: Sequence[Example]) -> dict[str, Example]:
    found: dict[str, Example] = {}
    for example in examples:
        if example.name in found:
            raise InvalidInputError(f"--users: two files are named {example.name}, expected one")
        found[example.name] = example
    return found
