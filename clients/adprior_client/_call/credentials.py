"""A client's certificates and token, read again when their files change."""

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
    """A client's certificates, trusted authorities and token.

    Attributes:
        channel: gRPC's credentials, None without TLS.
        token: The metadata that carries the token; empty without a token.

    Raises:
        InvalidArgumentError: A file is unreadable, or other users can read the key or the token.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._stamps: list[_Stamp] = []
        self.channel: Any = None
        self.token: dict[str, str] = {}
        self._read()

    def renew(self) -> bool:
        """Read the files again if one has changed, and return whether they were read.

        Unreadable files change nothing; they are logged once until they change again.
        """
        if self._stamp_files() == self._stamps:
            return False
        try:
            self._read()
        except InvalidArgumentError as error:
            _log.warning("adprior: changed files cannot be read: %s", error)
            return False
        _log.warning("adprior: certificates or token changed and were read again")
        return True

    def _read(self) -> None:
        self._stamps = self._stamp_files()  # before reading: a change in between is seen later
        channel, token = _channel_credentials(self._config), self._config.token_metadata()
        self.channel, self.token = channel, token

    def _stamp_files(self) -> list[_Stamp]:
        names = (*_TLS_FILES, "token_file")
        return [_stamp(getattr(self._config, name)) for name in names]


def _stamp(path: str | None) -> _Stamp:
    """Return a value that changes with the file's content."""
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
