"""Chooses the servers for a user: the same one for all calls, and the next ones if it fails.

A server may be a canary, which only a share of the users asks. These users ask one canary first,
then the other servers, so that a bad canary costs them no forecast. All other users never ask it,
even if no other server answers: a canary's share bounds whom it can harm.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adprior_client.circuit_breaker import CircuitBreaker
from adprior_client.config import ClientConfig
from adprior_client.errors import InvalidArgumentError
from adprior_client.server_sources import Address, shares_of

_log = logging.getLogger("adprior_client")


class Server:
    """One server.

    Args:
        address: Where it is.
        breaker: Its circuit breaker.
        on_failure: Called when it fails while its breaker is closed.

    Attributes:
        address: Where it is.
        url: ``HOST:PORT``.
        breaker: Its circuit breaker.
        bundle_id: The bundle of its last answer, empty before the first.
        cause: The cause of its last failure (`ClientError.cause`); empty if unknown.
    """

    def __init__(
        self, address: Address, breaker: CircuitBreaker, on_failure: Callable[[], object]
    ) -> None:
        self.address = address
        self.url = address.url
        self.breaker = breaker
        self._on_failure = on_failure
        self.bundle_id = ""
        self.cause = ""
        self._logged_cause = ""

    def __str__(self) -> str:
        """Return its address, and the cause of its last failure if that is known."""
        return f"{self.url} ({self.cause})" if self.cause else self.url

    def succeed(self) -> None:
        """Report a good answer."""
        self._report(self.breaker.succeed, "", is_good=True)

    def fail(self, cause: str = "") -> None:
        """Report a failed call."""
        self._report(self.breaker.fail, cause, is_good=False)

    def check(self, *, is_ready: bool, cause: str = "") -> None:
        """Report a health check."""
        self._report(lambda: self.breaker.check(is_ready=is_ready), cause, is_good=is_ready)

    def _report(self, change: Callable[[], None], cause: str, *, is_good: bool) -> None:
        """Log when the breaker opens or closes, or when the cause becomes known later."""
        before = self.breaker.is_open
        change()
        if not (is_good or before):
            self._on_failure()
        now, self.cause = self.breaker.is_open, cause
        if before != now or (now and cause not in {"", self._logged_cause}):
            _log.warning("adprior server %s: circuit breaker %s", self, "open" if now else "closed")
            self._logged_cause = cause


class Fleet:
    """All servers of a client, ranked for each user by rendezvous hashing.

    A user's first server stays the same while it is healthy, even if other servers come and go
    (Thaler and Ravishankar, 1998). The users of a failed server spread over all the others; a new
    server takes an equal share from each.

    Args:
        config: The settings of the circuit breakers.
        addresses: The servers.
        clock: A monotonic clock, in seconds.
        on_failure: Called when a server fails whose breaker is closed.

    Attributes:
        servers: The servers now; another tuple after a change.
    """

    def __init__(
        self,
        config: ClientConfig,
        addresses: Sequence[Address],
        *,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._on_failure = on_failure
        self.servers: tuple[Server, ...] = ()
        self.update(addresses)

    def update(self, addresses: Sequence[Address]) -> None:
        """Use these servers; those that stay keep their circuit breakers."""
        if shares_of(server.address for server in self.servers) != shares_of(addresses):
            kept = {server.address: server for server in self.servers}
            servers = tuple(kept.get(each) or self._make(each) for each in addresses)
            for server, address in zip(servers, addresses, strict=True):
                server.address = address
            self.servers = servers

    def _make(self, address: Address) -> Server:
        settings = self._config.breaker_failures, self._config.breaker_reset_s
        return Server(address, CircuitBreaker(*settings, self._clock), self._on_failure)

    def order(self, key: bytes, bundle_id: str = "") -> Sequence[Server]:
        """Return the servers in the order to ask them; canaries of other users are left out.

        Args:
            key: The user's key.
            bundle_id: If given, servers last seen with this bundle come first, then those whose
                bundle is unknown; the user's own server is asked even if its bundle is unknown, so
                that it becomes known. Of those with another bundle only one is tried, last: its
                bundle may have changed.
        """
        servers = self.servers
        if len(servers) == 1:
            return servers
        ranked = _rank(key, servers)
        if not bundle_id or not ranked:
            return ranked
        own = [] if ranked[0].bundle_id else ranked[:1]
        others = [server for server in ranked if server.bundle_id not in {bundle_id, ""}]
        unknown = [server for server in ranked[len(own) :] if not server.bundle_id]
        same = [server for server in ranked if server.bundle_id == bundle_id]
        return [*own, *same, *unknown, *others[:1]]


def user_key(user_id: Any) -> bytes:
    """Return the key that chooses a user's server."""
    if isinstance(user_id, np.integer):
        user_id = int(user_id)
    if isinstance(user_id, bool) or not isinstance(user_id, str | int):
        raise InvalidArgumentError(
            f"user_id: found {type(user_id).__name__}, expected text or an integer"
        )
    return repr(user_id).encode()


def canary_position(key: bytes) -> float:
    """Return the user's position in [0, 1): the user asks the canaries whose share is above it.

    So a larger share keeps all users of a smaller one. The position does not depend on the weights
    that rank the servers: the hash is personalised.
    """
    digest = hashlib.blake2b(key, digest_size=8, person=b"adprior-canary").digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)  # 53 bits, so that it never rounds to 1


def _rank(key: bytes, servers: Sequence[Server]) -> list[Server]:
    """Rank the servers for a user: one canary if the user has one, all others, more canaries."""
    ranked = sorted(servers, key=lambda server: _weight(key, server.url), reverse=True)
    shares = [server.address.canary_share for server in ranked]
    if not any(share is not None for share in shares):
        return ranked
    position = canary_position(key)
    listed = list(zip(ranked, shares, strict=True))
    stable = [server for server, share in listed if share is None]
    canaries = [server for server, share in listed if share is not None and position < share]
    return [*canaries[:1], *stable, *canaries[1:]]


def _weight(key: bytes, url: str) -> bytes:
    return hashlib.blake2b(key + b"\0" + url.encode(), digest_size=8).digest()
