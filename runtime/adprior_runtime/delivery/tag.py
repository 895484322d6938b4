"""A tag: a name such as ``latest``, the versions that were pushed to it, and which one is active.

A tag is the only object at a URL that changes. It is written last, in one step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, Self

from adprior_runtime.delivery.version import SHA256, SHORT_ID, Version
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.text.json_text import to_json

LATEST: Final = "latest"
PREVIOUS: Final = "previous"
"""Instead of a version: the one that was active before the active one."""
MOST_ENTRIES: Final = 100
"""The number of pushes that a tag remembers."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORTEST_PREFIX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A version that was pushed to a tag.

    Attributes:
        version: Its id.
        bundle_id: Its bundle's id.
        kind: What it contains.
        size: Bytes of its files.
        pushed: When it was pushed, in UTC, as ISO 8601.
    """

    version: str
    bundle_id: str
    kind: str
    size: int
    pushed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """The versions of a tag.

    Attributes:
        active: The id of the version that a pull gets; empty if nothing was activated yet.
        entries: All versions, the newest push first.
        before: The ids of those that were active before, the latest last. Going back to one of
            them takes it and all after it away: a version that was left does not come back.
    """

    active: str = ""
    entries: tuple[Entry, ...] = ()
    before: tuple[str, ...] = ()

    def with_push(self, version: Version, pushed: str, *, activate: bool) -> Self:
        """Return the tag after a push; a version that it knows moves to the front."""
        entry = Entry(
            version=version.id,
            bundle_id=version.bundle_id,
            kind=str(version.kind),
            size=version.size,
            pushed=pushed,
        )
        others = [each for each in self.entries if each.version != entry.version]
        kept = (entry, *others)[:MOST_ENTRIES]
        pushed_to = replace(self, entries=kept)
        return pushed_to._with_next(entry.version) if activate else pushed_to

    def only(self, versions: Collection[str]) -> Self:
        """Return the tag without the versions that are not among these."""
        return replace(
            self,
            entries=tuple(each for each in self.entries if each.version in versions),
            before=tuple(each for each in self.before if each in versions),
        )

    def with_active(self, version_id: str) -> Self:
        """Return the tag with another active version: one of before, or any other."""
        if version_id in self.before:
            left = self.before.index(version_id)
            return replace(self, active=version_id, before=self.before[:left])
        return self._with_next(version_id)

    def find(self, name: str, where: str) -> Entry:
        """Return a version by its id, by the beginning of its id, or by its bundle's id.

        Args:
            name: The version, or ``previous``.
            where: The tag's place, for messages.

        Raises:
            InvalidInputError: None fits, or several do.
        """
        if name == PREVIOUS:
            return self._before_active(where)
        if len(name) < _SHORTEST_PREFIX:
            raise InvalidInputError(
                f"{name!r}: expected at least {_SHORTEST_PREFIX} digits of a version"
            )
        found = self._fitting(name)
        if len(found) != 1:
            problem = f"{len(found)} versions fit" if found else "no such version"
            known = ", ".join(each.version[:SHORT_ID] for each in (found or self.entries)[:8])
            raise InvalidInputError(f"{where}: {problem}: {name!r}; there is {known or 'none'}")
        return found[0]

    def fits(self, name: str) -> bool:
        """Return whether a version has this id, beginning of an id or bundle's id."""
        return len(name) >= _SHORTEST_PREFIX and bool(self._fitting(name))

    def _fitting(self, name: str) -> list[Entry]:
        return [
            each for each in self.entries if each.version.startswith(name) or each.bundle_id == name
        ]

    def _with_next(self, version_id: str) -> Self:
        if version_id == self.active:
            return self
        known = {each.version for each in self.entries} - {version_id}
        before = tuple(each for each in (*self.before, self.active) if each in known)
        return replace(self, active=version_id, before=before)

    def _before_active(self, where: str) -> Entry:
        known = {each.version: each for each in self.entries}
        found = [each for each in self.before if each in known]
        if not found:
            raise InvalidInputError(
                f"{where}: no version was active before the active one; name one of `--list`"
            )
        return known[found[-1]]

    def to_json(self) -> bytes:
        """Return the tag as it is stored."""
        return to_json(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, where: str) -> Tag:
        """Read a stored tag; raise ArtefactError if it is none."""
        try:
            document = json.loads(data)
            entries = tuple(
                Entry(**{field.name: item[field.name] for field in fields(Entry)})
                for item in document["entries"]
            )
            before = tuple(document.get("before", ()))
            tag = cls(active=document["active"], entries=entries, before=before)
            ids = [*(each.version for each in entries), *before, *[tag.active] * bool(tag.active)]
            if not all(SHA256.fullmatch(each) for each in ids):
                raise ValueError("a version's id is not 64 hex digits")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"{where}: not a tag of adprior: {error}") from error
        return tag


def check_tag_name(text: str) -> str:
    """Return a tag's name; raise InvalidInputError for one that would be no plain file name."""
    if not _NAME.fullmatch(text) or text == PREVIOUS:
        raise InvalidInputError(
            f"tag {text!r}: expected letters, digits, . _ or -, 64 at most, and not {PREVIOUS!r}"
        )
    return text
