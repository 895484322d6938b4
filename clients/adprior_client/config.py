"""Settings of a client: one frozen value, checked when it is made."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from adprior_client.checks import check_metadata, check_number, check_urls, is_sendable
from adprior_client.errors import InvalidArgumentError
from adprior_runtime.contract import GRPC_KEY_PREFIX, INFERENCE_KEY, Priority
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import read_token

PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""Environment variables: gRPC takes the first one that is set, in lower case only."""

_PREFIX: Final = "ADPRIOR_CLIENT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Settings of a client.

    Attributes:
        urls: ``HOST:PORT`` of each server's gRPC endpoint; ``dns:///NAME:PORT`` for a server at
            every address of a name; ``file:///PATH`` for a file with one ``HOST:PORT`` a line.
            A user's calls go to one server (rendezvous hashing), and to the others while it is
            down.
        deadline_s: Deadline of a call, retries and other servers included; a call may set its own.
        fail_open: Return the server's failures as a result with a ``reason``. If off, raise them.
            The caller's own errors are always raised.
        shadow: Make the calls, but do not apply their results.
        kill_switch_file: While this file exists, nothing is sent; checked at each call.
        max_attempts: Attempts per call, 1 to 5. With one server gRPC retries it; with several, each
            is tried at most once. A server that is gone or stopping costs no attempt.
        initial_backoff_s: Pause before the first retry, with jitter.
        max_backoff_s: Longest pause before a retry.
        backoff_multiplier: Growth of the pause from one retry to the next.
        breaker_failures: Failed calls in a row that open a server's circuit breaker.
        breaker_reset_s: Shortest time that a circuit breaker stays open.
        health_interval_s: Time between two readiness checks of each server; 0 turns them off.
        discovery_interval_s: Time between two looks at a name or file; one more follows soon after
            a server has failed.
        keepalive_time_s: Time between two pings of a connection with calls under way.
        keepalive_timeout_s: Longest wait for the answer to a ping, or for any progress, before a
            connection is closed.
        stored_max_age_s: Greatest age of a stored forecast that may be used.
        stored_reserve_s: Part of a ranking's deadline kept for a stored forecast if the live
            answer fails; only with a source of stored forecasts.
        priority: ``ranking``, ``retrieval`` or ``bulk``: the queue priority at the server. By
            default rankings go before forecasts.
        tls: Use TLS; any of the TLS settings below turns it on too.
        tls_ca_file: PEM certificates to trust; the system's by default.
        tls_certificate_file: The client's own PEM chain, for mTLS.
        tls_key_file: The key of that chain; only its owner may read it.
        tls_server_name: The name in the server's certificate if it is not the host.
        use_proxy: Use the proxy that ``grpc_proxy``, ``https_proxy`` or ``http_proxy`` names in
            the environment; never for a server on loopback.
        token_file: File with the token that ``adprior serve --inference-token-file`` expects; only
            its owner may read it. Like the certificates it is read when a client is made, and
            again if it has changed when a server is out of reach or refuses the client.
        token: The token itself.
        metadata: Sent with each call, such as ``("authorization", "Bearer ...")``.

    Raises:
        InvalidArgumentError: A setting is impossible.
    """

    urls: tuple[str, ...]
    deadline_s: float = 1.0
    fail_open: bool = True
    shadow: bool = False
    kill_switch_file: str | None = None
    max_attempts: int = 3
    initial_backoff_s: float = 0.01
    max_backoff_s: float = 0.2
    backoff_multiplier: float = 2.0
    breaker_failures: int = 5
    breaker_reset_s: float = 1.0
    health_interval_s: float = 1.0
    discovery_interval_s: float = 5.0
    keepalive_time_s: float = 30.0
    keepalive_timeout_s: float = 5.0
    stored_max_age_s: float = 2 * 86400.0
    stored_reserve_s: float = 0.0
    priority: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None
    tls_certificate_file: str | None = None
    tls_key_file: str | None = None
    tls_server_name: str | None = None
    use_proxy: bool = True
    token_file: str | None = None
    token: str | None = field(default=None, repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_urls(self.urls)
        for item in fields(self):
            self._check_type(item.name, str(item.type))
        self._check_together()

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        if kind == "float":
            check_number(value, name, _LOW.get(name, 0.0))
        elif kind == "int":
            low, high = _RANGES[name]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidArgumentError(
                    f"{name}: found {value!r}, expected an integer from {low} to {high}"
                )
        elif kind in _KINDS and not isinstance(value, _KINDS[kind]):
            raise InvalidArgumentError(f"{name}: found {type(value).__name__}, expected {kind}")

    def _check_together(self) -> None:
        if self.priority is not None and self.priority.upper() not in Priority.__members__:
            raise InvalidArgumentError(
                f"priority: found {self.priority!r}, expected one of "
                f"{', '.join(name.lower() for name in Priority.__members__)}"
            )
        if self.stored_reserve_s >= self.deadline_s:
            raise InvalidArgumentError(
                f"stored_reserve_s: found {self.stored_reserve_s:g}, expected less than "
                f"deadline_s, {self.deadline_s:g}"
            )
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise InvalidArgumentError("tls_certificate_file and tls_key_file go together")
        if self.token is not None and self.token_file is not None:
            raise InvalidArgumentError("token and token_file: give one of them")
        if self.token is not None and not is_sendable(self.token):
            raise InvalidArgumentError("token: not printable ASCII")
        if not isinstance(self.metadata, tuple):
            raise InvalidArgumentError("metadata: expected a tuple of pairs of text")
        check_metadata(self.metadata)

    @property
    def level(self) -> Priority | None:
        """The priority as a number of the contract."""
        return None if self.priority is None else Priority[self.priority.upper()]

    def token_metadata(self) -> dict[str, str]:
        """Return the metadata that carries the token; empty without a token.

        Raises:
            InvalidArgumentError: The token's file is unreadable, or other users can read it.
        """
        token = self.token
        if self.token_file is not None:
            try:
                token = read_token(Path(self.token_file))
            except InvalidInputError as error:
                raise InvalidArgumentError(f"token_file: {error}") from error
        return {} if token is None else {f"{GRPC_KEY_PREFIX}{INFERENCE_KEY}": token}

    @property
    def is_secure(self) -> bool:
        """Whether TLS is used."""
        files = (self.tls_ca_file, self.tls_certificate_file, self.tls_server_name)
        return self.tls or any(value is not None for value in files)

    @classmethod
    def of(cls, value: ClientConfig | str) -> ClientConfig:
        """Return the configuration, or the defaults with a server's address."""
        return value if isinstance(value, ClientConfig) else cls(urls=(value,))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Read a TOML file of these settings; ``metadata`` is a table.

        Raises:
            InvalidArgumentError: The file is unreadable, or a setting unknown or impossible.
        """
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:  # a TOMLDecodeError is a ValueError
            raise InvalidArgumentError(f"{path}: not a TOML file: {error}") from error
        if isinstance(document.get("metadata"), dict):
            document["metadata"] = tuple(document["metadata"].items())
        if isinstance(document.get("urls"), list):
            document["urls"] = tuple(document["urls"])
        return cls._of_settings(document, str(path))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read ``ADPRIOR_CLIENT_URLS=host:8001,other:8001``, ``ADPRIOR_CLIENT_DEADLINE_S`` ...

        ``ADPRIOR_CLIENT_METADATA`` is ``key=value,key=value``; flags are ``true`` or ``false``.

        Args:
            environ: The variables; the process's environment by default.

        Raises:
            InvalidArgumentError: A variable with that prefix is unknown, or its value impossible.
        """
        variables = os.environ if environ is None else environ
        found = {
            name.removeprefix(_PREFIX).lower(): value
            for name, value in variables.items()
            if name.startswith(_PREFIX)
        }
        kinds = {item.name: str(item.type) for item in fields(cls)}
        settings = {name: _parse(name, text, kinds.get(name, "")) for name, text in found.items()}
        return cls._of_settings(settings, f"{_PREFIX}*")

    @classmethod
    def _of_settings(cls, settings: dict[str, Any], place: str) -> Self:
        known = {item.name for item in fields(cls)}
        if unknown := sorted(settings.keys() - known):
            raise InvalidArgumentError(
                f"{place}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        if "urls" not in settings:
            raise InvalidArgumentError(f"{place}: urls is missing")
        try:
            return cls(**settings)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{place}: {error}") from error


_LOW: Final[dict[str, float | None]] = {
    "initial_backoff_s": 1e-4,
    "max_backoff_s": 1e-4,
    "health_interval_s": None,
    "stored_reserve_s": None,
}
"""A setting must be more than this; None means at least 0. Other numbers must be more than 0."""
_RANGES: Final[dict[str, tuple[int, float]]] = {
    "max_attempts": (1, 5),  # the limit of gRPC
    "breaker_failures": (1, math.inf),
}
_KINDS: Final[dict[str, Any]] = {"bool": bool, "str | None": str | None}


def _parse(name: str, text: str, kind: str) -> Any:
    if name == "urls":
        return tuple(url.strip() for url in text.split(","))
    if name == "metadata":
        pairs = [pair.partition("=") for pair in text.split(",")]
        return tuple((key.strip(), value.strip()) for key, _, value in pairs)
    if kind == "bool":
        flags = {"true": True, "false": False}
        if text.lower() not in flags:
            raise InvalidArgumentError(
                f"{_PREFIX}{name.upper()}: found {text!r}, expected true or false"
            )
        return flags[text.lower()]
    if kind in {"int", "float"}:
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise InvalidArgumentError(
                f"{_PREFIX}{name.upper()}: found {text!r}, expected a number"
            ) from None
    return text
