"""The file of servers that every client follows: the one switch of a rollout, and its only state.

A comment in the file, which clients skip, says how far the rollout is. The file is replaced by a
rename, so that clients and a rollout that continues find one whole state, even after a kill.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from adprior_client.server_sources import Address, is_address, parse_lines
from adprior_runtime.errors import AdpriorError, InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.terminal.tables import format_percent
from adprior_runtime.text.json_text import to_json

_HEADING: Final = "# Written by adprior rollout. Do not change it while a rollout runs.\n"
_MARK: Final = "# adprior-rollout: "
_MODE: Final = 0o644
"""The mode of a new file: clients of other users read it."""


class TakenOverError(AdpriorError):
    """Somebody else has changed the file of servers."""


class State(StrEnum):
    """The state of a rollout."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout, as the file of servers states it.

    Attributes:
        state: How far it is.
        stable: The servers of the stable bundle, ``HOST:PORT``.
        canary: The servers of the new bundle.
        share: The share of the users on the canary while it runs.
        reason: Why it is in this state.
        since: When it came into this state, ISO 8601.
    """

    state: State
    stable: tuple[str, ...]
    canary: tuple[str, ...]
    share: float = 0.0
    reason: str = ""
    since: str = field(default_factory=_now)

    def change(self, state: State, reason: str, *, share: float = 0.0) -> Self:
        """Return the rollout in another state, from now on."""
        return replace(self, state=state, reason=reason, share=share, since=_now())

    def addresses(self) -> tuple[Address, ...]:
        """Return the servers for the clients."""
        stable = tuple(map(Address, self.stable))
        match self.state:
            case State.RUNNING:
                return (*stable, *(Address(url, canary_share=self.share) for url in self.canary))
            case State.PROMOTED:
                return tuple(map(Address, self.canary))
            case State.ROLLED_BACK:
                return stable

    def to_text(self) -> str:
        """Return the text of the file."""
        lines = "".join(f"{address.line}\n" for address in self.addresses())
        return f"{_HEADING}{_MARK}{to_json(asdict(self))}\n{lines}"

    def describe(self) -> str:
        """Return the state as one line."""
        where = f", {format_percent(self.share)} of the users" if self.share else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.state}{where} since {self.since[:19]}Z{why}"


class Switch:
    """The file of servers.

    Args:
        path: The file; a link stays, and the file behind it is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.resolve()

    def read_text(self) -> str:
        """Return the file's text; empty if there is no file."""
        try:
            return self._file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{self.path}: not UTF-8") from error

    def read(self, text: str | None = None) -> tuple[Rollout | None, tuple[Address, ...]]:
        """Return the rollout that the file states, if any, and the servers that it lists.

        Args:
            text: The file's text, if it has been read.

        Raises:
            InvalidInputError: A line is malformed, or somebody has changed the lines of a rollout.
        """
        text = self.read_text() if text is None else text
        if not text:
            return None, ()
        try:
            addresses = parse_lines(text)
        except ValueError as error:
            raise InvalidInputError(f"{self.path}: {error}") from error
        rollout = self.read_stated(text)
        if rollout is not None and rollout.to_text() != text:
            raise InvalidInputError(
                f"{self.path}: the lines are not those of the rollout that the file states; "
                f"end it with --rollback, or remove the line that begins with {_MARK.strip()!r} "
                "to begin anew"
            )
        return rollout, addresses

    def read_stated(self, text: str) -> Rollout | None:
        """Return the rollout that a text states, if any, whatever servers its lines list.

        Raises:
            InvalidInputError: The state is malformed.
        """
        marks = [line for line in text.splitlines() if line.startswith(_MARK)]
        return self._parse(marks[0].removeprefix(_MARK)) if marks else None

    def write(self, rollout: Rollout, *, expected: str) -> str:
        """Replace the file, if it still has the expected text; return the new text.

        Raises:
            TakenOverError: It has another text.
        """
        with self._locked():
            self.check(expected)
            text = rollout.to_text()
            with replace_file(self._file) as fresh, fresh.open("w", encoding="utf-8") as file:
                file.write(text)
                self._keep_access(file.fileno())
                file.flush()
                os.fsync(file.fileno())
            return text

    def check(self, expected: str) -> None:
        """Raise TakenOverError if the file has another text than expected."""
        if self.read_text() != expected:
            raise TakenOverError(f"{self.path}: somebody else has changed it; this rollout ends")

    def _keep_access(self, fresh: int) -> None:
        """Give the new file the old one's owner, where permitted, and mode, whatever the umask."""
        if not self._file.exists():
            os.fchmod(fresh, _MODE)
            return
        old = self._file.stat()
        for owner in (old.st_uid, -1):  # the group alone, if the owner may not be set
            with suppress(PermissionError):
                os.fchown(fresh, owner, old.st_gid)
                break
        os.fchmod(fresh, old.st_mode & 0o777)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other rollouts from the directory between the check and the rename."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _parse(self, mark: str) -> Rollout:
        try:
            stated: dict[str, Any] = json.loads(mark)
            for group in ("stable", "canary"):
                stated[group] = check_urls(stated[group])
            rollout = Rollout(**(stated | {"state": State(stated["state"])}))
            rollout.to_text()
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInputError(
                f"{self.path}: the rollout's state is malformed: {error}"
            ) from error
        return rollout


def check_urls(urls: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return servers' addresses; raises ValueError for another form, or one that is twice there."""
    for url in urls:
        if not is_address(url):
            raise ValueError(f"found {url!r}, expected HOST:PORT")
    if len(set(urls)) < len(urls):
        raise ValueError(f"found a server twice in {', '.join(urls)}")
    return tuple(urls)
