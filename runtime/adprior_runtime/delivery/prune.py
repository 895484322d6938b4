"""Removes old versions from a store, without harm to a push or pull that runs meanwhile.

A prune removes versions, and condemns the blobs that no version needs then: it writes down their
names (``removed/….json``). A later prune, when the grace is over, removes those that no version
needs by that time. The grace is longer than any push or pull takes:

- A pull that has read its version finds its blobs during the grace.
- A push that began before the blobs were condemned has written its version by the end of the grace,
  which keeps its blobs.
- A push that begins later sends condemned blobs again. A blob that is newer than its condemnation
  stays. A push may send a blob in the moment between a prune's look at it and its removal: so the
  push looks again after it has written its version, and sends what is lost; and the prune looks
  for new versions after its removals, and says which one it has harmed.

A kill at any moment leaves blobs too many, never too few, and the next prune finds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from adprior_runtime.delivery.fetch import persist
from adprior_runtime.delivery.lookup import list_versions, read_tag, read_version
from adprior_runtime.delivery.store import BLOBS, TAGS, Store, blob_name, version_name
from adprior_runtime.delivery.store_errors import NotStoredError
from adprior_runtime.delivery.tag import MOST_ENTRIES
from adprior_runtime.delivery.version import Version
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.text.json_text import to_json

_REMOVED: Final = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune did, or would do.

    Attributes:
        versions: The ids of the versions that it removed.
        condemned: The blobs that go after the grace: their bytes, by name.
        removed: The blobs that it removed, condemned by earlier prunes.
        is_dry: Whether it only looked.
    """

    versions: tuple[str, ...]
    condemned: Mapping[str, int]
    removed: Mapping[str, int]
    is_dry: bool

    def to_json(self) -> dict[str, Any]:
        """Return a document."""
        return {
            "dry_run": self.is_dry,
            "versions": self.versions,
            "condemned_files": len(self.condemned),
            "condemned_bytes": sum(self.condemned.values()),
            "removed_files": len(self.removed),
            "removed_bytes": sum(self.removed.values()),
        }


def prune(store: Store, keep: int, *, grace_s: float, is_dry: bool) -> Pruned:
    """Remove the versions that no tag keeps, and the blobs that were condemned long enough ago.

    A tag keeps its last pushes, its active version, and the one that was active before it.

    Args:
        store: Where.
        keep: The number of last pushes that each tag keeps, `MOST_ENTRIES` at most.
        grace_s: Longer than any push or pull takes, in seconds. What is younger stays.
        is_dry: Only look.

    Raises:
        InvalidInputError: Nothing can be removed there, or ``keep`` is too large.
        ArtefactError: A tag, a version or a condemnation is corrupt, or a version that was pushed
            meanwhile needs a blob that was removed; nothing more is removed.
    """
    _require_possible(store, keep)
    limit = datetime.now(UTC) - timedelta(seconds=grace_s)
    versions = {each: read_version(store, each) for each in list_versions(store)}
    removed = _remove_condemned(store, versions, limit, is_dry=is_dry)
    kept = _kept_by_tags(store, keep)
    old = {
        each: version
        for each, version in sorted(versions.items())
        if each not in kept and _is_older(store, version_name(each), limit)
    }
    needed = _needed(version for each, version in versions.items() if each not in old)
    spared = needed | removed.keys() | read_condemned(store)
    condemned = {
        name: size
        for name, size in store.list(BLOBS).items()
        if name not in spared and _is_older(store, name, limit)
    }
    if not is_dry:
        _condemn(store, condemned)
        _remove_versions(store, old, keep)
    return Pruned(versions=tuple(old), condemned=condemned, removed=removed, is_dry=is_dry)


def _require_possible(store: Store, keep: int) -> None:
    if keep > MOST_ENTRIES:
        raise InvalidInputError(
            f"--prune: found {keep}, expected {MOST_ENTRIES} at most: a tag remembers no more"
        )
    if not store.is_writable:
        raise InvalidInputError(f"{store.url}: a prune needs a directory or an object store")


def read_condemned(store: Store) -> set[str]:
    """Return the name of each blob that a prune may remove soon: a push sends it again."""
    return {blob for name in store.list(_REMOVED) for blob in _read(store, name)}


def _kept_by_tags(store: Store, keep: int) -> set[str]:
    kept: set[str] = set()
    for name in store.list(TAGS):
        tag = read_tag(store, name.rpartition("/")[2].removesuffix(".json"))
        kept |= {tag.active, *tag.before[-1:], *(each.version for each in tag.entries[:keep])}
    return kept


def _needed(versions: Iterable[Version]) -> set[str]:
    return {blob_name(blob) for version in versions for blob in version.files.values()}


def _condemn(store: Store, blobs: Mapping[str, int]) -> None:
    if blobs:
        data = to_json({"blobs": blobs}, indent=1).encode()
        # The same blobs have the same name: a prune after a killed one replaces what that left.
        store.write(f"{_REMOVED}/{hashlib.sha256(data).hexdigest()}.json", data)


def _remove_versions(store: Store, old: Mapping[str, Version], keep: int) -> None:
    for each in old:
        store.remove(version_name(each))
    # Somebody may have activated one of them meanwhile.
    for each in _kept_by_tags(store, keep) & old.keys():
        store.write(version_name(each), old[each].to_json())


def _read(store: Store, name: str) -> dict[str, int]:
    """Return the blobs of a condemnation; none if another prune has just removed it."""
    try:
        blobs = dict(json.loads(persist(lambda: store.read(name)))["blobs"])
        if not all(each.startswith(f"{BLOBS}/") and ".." not in each for each in blobs):
            raise ValueError("found the name of another object than a blob")
    except NotStoredError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtefactError(f"{store.place(name)}: no condemnation of adprior: {error}") from error
    return blobs


def _remove_condemned(
    store: Store, versions: Mapping[str, Version], limit: datetime, *, is_dry: bool
) -> dict[str, int]:
    """Remove the blobs of the condemnations before ``limit``, but for those that are needed."""
    needed = _needed(versions.values())
    removed: dict[str, int] = {}
    for name in store.list(_REMOVED):
        written = store.modified(name)
        if written >= limit:
            continue
        for blob, size in _read(store, name).items():
            if blob not in needed and _is_older(store, blob, written):
                removed[blob] = size
                if not is_dry:
                    store.remove(blob)
        if not is_dry:
            store.remove(name)
    if removed and not is_dry:
        _require_unharmed(store, versions, removed)
    return removed


def _require_unharmed(store: Store, known: Container[str], removed: Container[str]) -> None:
    """Raise ArtefactError if a version that is not known lacks a blob that was removed."""
    for each in list_versions(store):
        if each in known:
            continue
        needed = _needed([read_version(store, each)])
        lost = [blob for blob in needed if blob in removed and store.size(blob) is None]
        if lost:
            raise ArtefactError(
                f"{store.place(version_name(each))}: pushed while this prune removed files; found "
                f"{len(lost)} of its files missing, expected none: push it again"
            )


def _is_older(store: Store, name: str, moment: datetime) -> bool:
    """Return whether an object is there, and was written before a moment."""
    try:
        return store.modified(name) < moment
    except NotStoredError:
        return False
