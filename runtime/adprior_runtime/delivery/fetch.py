"""Fetches blobs into a staging directory: in parts, in parallel, again if a connection breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

from adprior_runtime.delivery.staging import Part, Staging
from adprior_runtime.delivery.store import Store, blob_name
from adprior_runtime.delivery.store_errors import StoreUnavailableError
from adprior_runtime.delivery.version import Blob

_Result = TypeVar("_Result")
TRANSFERS: Final = 8
"""Parts or blobs that move at once."""
_WAITS_S: Final = (0.5, 2.0, 5.0)
"""Waits before the next attempts."""


def persist(action: Callable[[], _Result]) -> _Result:
    """Do something, again after a while if the store is unavailable; return its result."""
    for wait_s in _WAITS_S:
        try:
            return action()
        except StoreUnavailableError:
            time.sleep(wait_s)
    return action()


class Fetch:
    """The parts of blobs that are still to be fetched.

    Args:
        store: Where the blobs are.
        staging: Where they go.
        blobs: The blobs that are not complete.
        in_parts: Whether the store gives parts of objects.
    """

    def __init__(
        self, store: Store, staging: Staging, blobs: Sequence[Blob], *, in_parts: bool
    ) -> None:
        self._store = store
        self._staging = staging
        self._in_parts = in_parts
        self._parts = {
            blob: staging.missing_parts(blob) if in_parts else [Part(blob, 0, 0, blob.size)]
            for blob in blobs
        }

    @property
    def size(self) -> int:
        """The bytes that are to be fetched."""
        return sum(part.end - part.start for parts in self._parts.values() for part in parts)

    def run(self, advance: Callable[[int], object]) -> None:
        """Fetch everything; each blob is checked when its last part is here.

        Raises:
            ArtefactError: A blob is missing or corrupt.
            EnvironmentProblemError: The store refuses, or does not answer for several attempts.
            OSError: The bytes cannot be written.
        """
        left = {blob: len(parts) for blob, parts in self._parts.items()}
        with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="adprior-pull") as pool:
            try:
                for blob, count in left.items():
                    if not count:  # empty, or a killed pull had fetched all of it
                        self._complete(blob)
                waiting = {
                    pool.submit(self._fetch, part): part
                    for parts in self._parts.values()
                    for part in parts
                }
                for future in as_completed(waiting):
                    future.result()
                    part = waiting[future]
                    advance(part.end - part.start)
                    left[part.blob] -= 1
                    if not left[part.blob]:
                        self._complete(part.blob)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _complete(self, blob: Blob) -> None:
        self._staging.complete(blob, self._store.place(blob_name(blob)))

    def _fetch(self, part: Part) -> None:
        persist(lambda: self._attempt(part))

    def _attempt(self, part: Part) -> None:
        name = blob_name(part.blob)
        if not self._in_parts:
            self._store.download(name, self._staging.part_path(part.blob))
            return
        data = self._store.read(name, part.start, part.end)
        if len(data) != part.end - part.start:
            raise StoreUnavailableError(
                f"{self._store.place(name)}: {len(data):,} bytes from byte {part.start:,}, "
                f"expected {part.end - part.start:,}"
            )
        self._staging.write_part(part, data)
