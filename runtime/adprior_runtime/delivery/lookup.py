"""Finds and reads the versions and tags of a store."""

from __future__ import annotations

import re
from typing import Final

from adprior_runtime.delivery.fetch import persist
from adprior_runtime.delivery.scan import MARKERS
from adprior_runtime.delivery.store import VERSIONS, Store, tag_name, version_name
from adprior_runtime.delivery.store_errors import NotStoredError
from adprior_runtime.delivery.tag import LATEST, PREVIOUS, Tag, check_tag_name
from adprior_runtime.delivery.version import SHA256, Version
from adprior_runtime.errors import ArtefactError, InvalidInputError

_HEX: Final = re.compile(r"[0-9a-f]+")


def read_version(store: Store, version_id: str) -> Version:
    """Read a version by its id.

    Raises:
        ArtefactError: It is missing, corrupt, or lacks what a version of its kind has.
    """
    name = version_name(version_id)
    place = store.place(name)
    data = persist(lambda: store.read(name))
    version = Version.parse(data, version_id=version_id, where=place)
    if MARKERS[version.kind] not in version.files:
        raise ArtefactError(f"{place}: a {version.kind} without {MARKERS[version.kind]}")
    return version


def read_tag(store: Store, tag: str) -> Tag:
    """Return a tag; one without versions if it was never pushed."""
    name = tag_name(check_tag_name(tag))
    try:
        return Tag.parse(persist(lambda: store.read(name)), store.place(name))
    except NotStoredError:
        return Tag()


def list_versions(store: Store) -> set[str]:
    """Return the ids of all versions of a store that can be listed."""
    return {name.rpartition("/")[2].removesuffix(".json") for name in store.list(VERSIONS)}


def read_present_tag(store: Store, tag: str) -> Tag:
    """Return a tag without the versions that were removed; all of a store that only is read."""
    found = read_tag(store, tag)
    return found.only(list_versions(store)) if store.is_writable and found.entries else found


def find_version(store: Store, name: str) -> str:
    """Return the id of a version.

    Args:
        store: Where to look.
        name: Any version's full id; or a version of the tag ``latest``: the beginning of its id,
            its bundle's id, or ``previous``; or a tag.

    Raises:
        ArtefactError: Nothing was pushed to the URL.
        InvalidInputError: There is no such version.
    """
    if SHA256.fullmatch(name):
        return name
    if name in {LATEST, PREVIOUS} or not _HEX.fullmatch(name):
        if name != PREVIOUS and (active := read_tag(store, name).active):
            return active
        return _find_in_latest(store, name)
    # Versions first: a store may answer "no permission" for a tag that it does not have.
    if not read_tag(store, LATEST).fits(name) and (active := read_tag(store, name).active):
        return active
    return _find_in_latest(store, name)


def _find_in_latest(store: Store, name: str) -> str:
    latest, where = read_tag(store, LATEST), store.place(tag_name(LATEST))
    if not latest.entries:
        raise NotStoredError(f"{store.url}: no version was pushed here ({tag_name(LATEST)})")
    if name == LATEST:
        raise InvalidInputError(f"{where}: no version is active")
    return latest.find(name, where).version
