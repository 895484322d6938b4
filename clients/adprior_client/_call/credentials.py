"""A client's certificates and token: read when it is made, and again once their files change."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import grpc

from adprior_client.config import ClientConfig
from adprior_client.errors import InvalidArgumentError
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import check_private

_log = logging.getLogger("adprior_client")
_TLS_FILES: Final = ("tls_ca_file", "tls_key_file", "tls_certificate_file")
_Stamp = tuple[int, ...] | None


class Credentials:
    """What a client shows of itself and trusts of others.

    Attributes:
        channel: gRPC's credentials, None without TLS.
        token: The metadata that carries the token; empty without one.

    Args:
        config: Names the files.

    Raises:
        InvalidArgumentError: A file is unreadable, or others can read the key or the token.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._stamps: list[_Stamp] = []
        self.channel: Any = None
        self.token: dict[str, str] = {}
        self._read()

    def renew(self) -> bool:
        """Read the files again if one has changed; return whether all were read.

        Files that cannot be read change nothing: one warning, until they change once more.
        """
        if self._look() == self._stamps:
            return False
        try:
            self._read()
        except InvalidArgumentError as error:
            _log.warning("adprior: files that changed cannot be read: %s", error)
            return False
        _log.warning("adprior: certificates or token have changed: read again")
        return True

    def _read(self) -> None:
        self._stamps = self._look()  # before the content: a change in between is seen later
        channel, token = _channel_credentials(self._config), self._config.token_metadata()
        self.channel, self.token = channel, token

    def _look(self) -> list[_Stamp]:
        """Return what changes with a file's content, of each file that there may be."""
        names = (*_TLS_FILES, "token_file")
        return [_stamp(getattr(self._config, name)) for name in names]


def _stamp(path: str | None) -> _Stamp:
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116  follows links, as secrets are mounted
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _channel_credentials(config: ClientConfig) -> Any:
    if config.tls_key_file is not None:
        try:
            check_private(Path(config.tls_key_file))
        except InvalidInputError as error:
            raise InvalidArgumentError(f"tls_key_file: {error}") from error
    if not config.is_secure:
        return None
    return grpc.ssl_channel_credentials(
        *(_content(name, getattr(config, name)) for name in _TLS_FILES)
    )


def _content(name: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123  one line for three optional files
            return file.read()
    except OSError as error:
        raise InvalidArgumentError(f"{name}: {path}: {error.strerror}") from error
