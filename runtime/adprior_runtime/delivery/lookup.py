"""Finds and reads the versions and tags of a store."""

from __future__ import annotations

from adprior_runtime.delivery.scan import MARKERS
from adprior_runtime.delivery.store import Store, tag_name, version_name
from adprior_runtime.delivery.store_errors import NotStoredError
from adprior_runtime.delivery.tag import LATEST, PREVIOUS, Tag, check_tag_name
from adprior_runtime.delivery.version import SHA256, Version
from adprior_runtime.errors import ArtefactError, InvalidInputError


def read_version(store: Store, version_id: str) -> Version:
    """Read a version by its id.

    Raises:
        ArtefactError: It is missing, corrupt, or lacks what a version of its kind has.
    """
    name = version_name(version_id)
    place = store.place(name)
    version = Version.parse(store.read(name), version_id=version_id, where=place)
    if MARKERS[version.kind] not in version.files:
        raise ArtefactError(f"{place}: a {version.kind} without {MARKERS[version.kind]}")
    return version


def read_tag(store: Store, tag: str) -> Tag:
    """Return a tag; one without versions if it was never pushed."""
    name = tag_name(check_tag_name(tag))
    try:
        return Tag.parse(store.read(name), store.place(name))
    except NotStoredError:
        return Tag()


def find_version(store: Store, name: str) -> str:
    """Return the id of a version.

    Args:
        store: Where to look.
        name: A tag; or a version of the tag ``latest``: the beginning of its id, its bundle's id,
            or ``previous``; or any version's full id.

    Raises:
        ArtefactError: Nothing was pushed to the URL.
        InvalidInputError: There is no such version.
    """
    if SHA256.fullmatch(name):
        return name
    if name != PREVIOUS and (active := read_tag(store, name).active):
        return active
    latest = read_tag(store, LATEST)
    if not latest.entries:
        raise NotStoredError(f"{store.url}: no version was pushed here ({tag_name(LATEST)})")
    if name == LATEST:
        raise InvalidInputError(f"{store.place(tag_name(name))}: no version is active")
    return latest.find(name, store.place(tag_name(LATEST))).version
