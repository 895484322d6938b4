"""What somebody has changed by hand in the file of a rollout, so that a rollback keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from adprior_client.rollout.switch import Rollout, State
from adprior_client.server_sources import Address, parse_line

_LONGEST: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """The changes by hand of a rollout's file.

    Attributes:
        listed: The servers in the file's lines, as far as the lines are well-formed.
        added: Those of them for all users that the rollout does not know; a rollback keeps them.
        changes: What differs from the lines that the rollout wrote; empty if nothing does.
    """

    listed: tuple[Address, ...]
    added: tuple[str, ...]
    changes: tuple[str, ...]

    @classmethod
    def find(cls, rollout: Rollout, text: str) -> Self:
        """Compare the file's text with the one of the rollout that it states."""
        if text == rollout.to_text():
            return cls(listed=rollout.addresses(), added=(), changes=())
        listed, malformed = _read_lines(text)
        expected = {each.line for each in rollout.addresses()}
        found = {each.line for each in listed}
        known = {*rollout.stable, *rollout.canary}
        canaries = {each.url for each in listed if each.canary_share is not None}
        changes = [f"added {line}" for line in sorted(found - expected)]
        changes += [f"removed {line}" for line in sorted(expected - found)]
        changes += [f"malformed {line[:_LONGEST]!r}" for line in malformed]
        return cls(
            listed=listed,
            added=tuple(sorted({each.url for each in listed} - known - canaries)),
            changes=tuple(changes) or ("comments, or the order of lines",),
        )

    def describe(self) -> str:
        """Return the changes as one line."""
        return f"somebody has changed the file: {', '.join(self.changes)}"


def roll_back(rollout: Rollout, edits: Edits) -> Rollout:
    """Return the rollout, rolled back to its stable servers and those that somebody has added."""
    reason = f"asked for, was {rollout.state}"
    if edits.changes:
        reason += f"; {edits.describe()}"
        if edits.added:
            reason += f"; kept {', '.join(edits.added)}"
    stable = (*rollout.stable, *edits.added)
    return replace(rollout, stable=stable).change(State.ROLLED_BACK, reason)


def _read_lines(text: str) -> tuple[tuple[Address, ...], list[str]]:
    """Return the servers of the well-formed lines, sorted, and the malformed lines."""
    listed: dict[tuple[Address, float | None], None] = {}
    malformed = []
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if entry and (address := parse_line(entry)) is not None:
            listed[address, address.canary_share] = None
        elif entry:
            malformed.append(entry)
    return tuple(sorted(address for address, _ in listed)), malformed
