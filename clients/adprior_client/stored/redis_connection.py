"""Connections to Redis: checked addresses, TLS, passwords from files."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from adprior_runtime.errors import InvalidInputError

if TYPE_CHECKING:
    import redis

_SCHEMES: Final = ("redis", "rediss", "unix")
_EXPECTED: Final = "expected redis://HOST:PORT/DB, rediss:// for TLS, or unix:///PATH?db=DB"
_DEFAULT_PORT: Final = 6379


class RedisAddress:
    """The address and credentials of a Redis server; ``name`` is the address for messages.

    Args:
        url: ``redis://[USER@]HOST[:PORT][/DB]``, ``rediss://`` for TLS, ``unix:///PATH[?db=DB]``.
        password: The user's password, or the server's if it has no users.
        password_file: File with the password; read again at each connection.
        tls_ca_file: PEM certificates to trust; the system's by default.
        tls_certificate_file: The client's own PEM chain, if the server requires one.
        tls_key_file: The key of that chain.

    Raises:
        InvalidInputError: The URL is malformed or holds a password, or a TLS file is unusable.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        password_file: str | Path | None = None,
        tls_ca_file: str | Path | None = None,
        tls_certificate_file: str | Path | None = None,
        tls_key_file: str | Path | None = None,
    ) -> None:
        parts = _split(url)
        if password is not None and password_file is not None:
            raise InvalidInputError("password and password_file: expected one of them")
        username = unquote(parts.username or "") or None
        self._settings: dict[str, Any] = {"username": username, "password": password}
        if password_file is not None:
            self._settings = {"credential_provider": PasswordFile(password_file, username)}
        self._scheme = parts.scheme
        if parts.scheme == "unix":
            self._settings |= {"path": unquote(parts.path), "db": _database(parts.query[3:])}
            self.name = f"unix://{parts.path}"
        else:
            host, port = parts.hostname or "localhost", parts.port or _DEFAULT_PORT
            self._settings |= {"host": host, "port": port, "db": _database(parts.path[1:])}
            shown = f"[{host}]" if ":" in host else host
            self.name = f"{parts.scheme}://{shown}:{port}/{self._settings['db']}"
        files = (tls_ca_file, tls_certificate_file, tls_key_file)
        if parts.scheme == "rediss":
            self._settings |= _tls_settings(*files)
        elif any(file is not None for file in files):
            raise InvalidInputError(f"{self.name}: TLS files were given, expected rediss://")

    def connect(self, *, timeout_s: float, max_connections: int) -> redis.Redis:
        """Return a client; it connects at its first command and never repeats a command.

        Args:
            timeout_s: Timeout of connecting, of each answer, and of waiting for a free connection.
            max_connections: Open connections at most; threads wait for a free one.

        Raises:
            InvalidInputError: The package redis is missing.
        """
        try:
            import redis  # noqa: PLC0415  optional
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInputError(
                f"{self.name}: needs the package redis: pip install 'adprior[redis]'"
            ) from error
        kinds: dict[str, type[Any]] = {
            "redis": redis.Connection,
            "rediss": redis.SSLConnection,
            "unix": redis.UnixDomainSocketConnection,
        }
        settings = dict(self._settings)
        if self._scheme != "unix":
            settings |= {"socket_connect_timeout": timeout_s, "socket_keepalive": True}
        make_pool: Any = redis.BlockingConnectionPool
        pool = make_pool(
            max_connections=max_connections,
            timeout=timeout_s,
            connection_class=kinds[self._scheme],
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **settings,
        )
        return redis.Redis(connection_pool=pool)


class PasswordFile:
    """The credentials that redis-py asks for at each connection.

    Args:
        path: A file that holds only the password.
        username: A user of Redis' ACL, or None.

    Raises:
        InvalidInputError: The file is unreadable, empty or has several lines.
    """

    def __init__(self, path: str | Path, username: str | None) -> None:
        self._path = path
        self._username = username
        self._last = read_password(path)

    def get_credentials(self) -> tuple[str, ...]:
        """Return user name and password; the last good password if the file is unreadable."""
        with suppress(InvalidInputError):  # it is being replaced
            self._last = read_password(self._path)
        return (self._last,) if self._username is None else (self._username, self._last)


def read_password(path: str | Path) -> str:
    """Return a file's only line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInputError(f"{path}: {reason}") from error
    if len(lines) != 1 or not lines[0]:
        raise InvalidInputError(f"{path}: found {len(lines)} lines, expected only the password")
    return lines[0]


def _split(url: str) -> Any:
    """Return a URL's parts; errors do not quote a URL that may hold a password."""
    try:
        parts = urlsplit(url)
        port, password = parts.port, parts.password
    except (ValueError, AttributeError, TypeError):
        raise InvalidInputError(f"Redis: the URL is malformed, {_EXPECTED}") from None
    if password is not None:
        raise InvalidInputError(
            "Redis: the URL holds a password, which command lines and logs show: give it separately"
        )
    if parts.scheme not in _SCHEMES:
        raise InvalidInputError(f"Redis: found {url!r}, {_EXPECTED}")
    if parts.scheme == "unix":
        good = bool(parts.path) and not parts.netloc.rpartition("@")[2]
        good = good and (not parts.query or re.fullmatch(r"db=\d+", parts.query) is not None)
    else:
        good = port != 0 and not parts.query and re.fullmatch(r"(/\d*)?", parts.path) is not None
    if not good or parts.fragment:
        raise InvalidInputError(f"Redis: found {url!r}, {_EXPECTED}")
    return parts


def _database(text: str) -> int:
    return int(text or "0")


def _tls_settings(
    ca_file: str | Path | None, certificate_file: str | Path | None, key_file: str | Path | None
) -> dict[str, Any]:
    if (certificate_file is None) != (key_file is None):
        raise InvalidInputError("Redis: a TLS certificate and its key go together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if file := ca_file:
            context.load_verify_locations(file)
        if file := certificate_file:
            context.load_cert_chain(file, key_file)
    except OSError as error:  # an SSLError is one
        reason = "not PEM, or the key is not this certificate's"
        if not isinstance(error, ssl.SSLError):
            reason = error.strerror or type(error).__name__
        raise InvalidInputError(f"{file}: {reason}") from error
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": None if ca_file is None else str(ca_file),
        "ssl_certfile": None if certificate_file is None else str(certificate_file),
        "ssl_keyfile": None if key_file is None else str(key_file),
    }
