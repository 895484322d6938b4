"""Stored forecasts from Redis, as ``adprior publish`` wrote them."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self

from adprior_client.checks import check_number
from adprior_client.circuit_breaker import CircuitBreaker
from adprior_client.forking import Forked, begin_anew_in_children
from adprior_client.results import Advertiser, Forecast
from adprior_client.stored.forecast_source import LookupCounts
from adprior_client.stored.forecast_time import are_not_in_future
from adprior_client.stored.redis_connection import RedisAddress
from adprior_client.stored.redis_errors import explain
from adprior_client.stored.redis_keys import DEFAULT_NAMESPACE, Keys, Pointer, field_of
from adprior_client.stored.redis_record import CorruptRecordError, Record, decode_record
from adprior_client.types import Source, UserId
from adprior_runtime.errors import InvalidInputError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FAILURES: Final = 3
"""After this many failures in a row, Redis is not asked for `_RESET_S`."""
_RESET_S: Final = 1.0
_log = logging.getLogger("adprior_client")
_Outcome = Literal["found", "absent", "corrupt", "from_future", "failed", "skipped"]


class RedisForecasts(Forked):
    """Forecasts that ``adprior publish`` wrote; a `ForecastSource` whose lookups never raise.

    If Redis fails, a lookup finds nothing, and `counts` says why. After three failures in a row
    Redis is not asked for a second. Connections open at the first lookup. Threads may share a
    source, and so may a blocking and an asyncio client.

    Args:
        url: ``redis://[USER@]HOST[:PORT][/DB]``, ``rediss://`` for TLS, ``unix:///PATH[?db=DB]``;
            a replica works too.
        namespace: The namespace given to ``adprior publish``.
        password: The user's password, or the server's if it has no users.
        password_file: File with the password; read again at each connection.
        timeout_s: Timeout of connecting, and of each answer; a usual lookup waits for one answer.
        refresh_s: Time after which a new version is noticed; each check is a small read.
        max_connections: Open connections at most.
        tls_ca_file: PEM certificates to trust; the system's by default.
        tls_certificate_file: The client's own PEM chain, if the server requires one.
        tls_key_file: The key of that chain.

    Raises:
        InvalidInputError: A setting is impossible, or the package redis is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        password: str | None = None,
        password_file: str | Path | None = None,
        timeout_s: float = 0.02,
        refresh_s: float = 1.0,
        max_connections: int = 8,
        tls_ca_file: str | Path | None = None,
        tls_certificate_file: str | Path | None = None,
        tls_key_file: str | Path | None = None,
    ) -> None:
        check_number(timeout_s, "timeout_s")
        self._refresh_s = check_number(refresh_s, "refresh_s")
        if type(max_connections) is not int or max_connections < 1:
            raise InvalidInputError(
                f"max_connections: found {max_connections!r}, expected an integer of at least 1"
            )
        address = RedisAddress(
            url,
            password=password,
            password_file=password_file,
            tls_ca_file=tls_ca_file,
            tls_certificate_file=tls_certificate_file,
            tls_key_file=tls_key_file,
        )
        self._name = address.name
        self._keys = Keys(namespace)
        self._redis: Any = address.connect(timeout_s=timeout_s, max_connections=max_connections)
        self._begin_anew()
        self._counts: dict[_Outcome, int] = dict.fromkeys(LookupCounts.__slots__, 0)  # type: ignore[arg-type]
        self._pointer: Pointer | None = None
        self._pointer_bytes: bytes | None = None
        self._pointer_is_corrupt = False
        self._refresh_at: float | None = None
        self._warned_of: str | None = None
        begin_anew_in_children(self)

    def _begin_anew(self) -> None:
        """See `Forked._begin_anew`: redis-py itself opens new connections in a child."""
        self._breaker = CircuitBreaker(_FAILURES, _RESET_S, time.monotonic)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later lookup opens them again."""
        self._redis.connection_pool.disconnect()

    @property
    def counts(self) -> LookupCounts:
        """The lookups so far, by outcome."""
        with self._lock:
            return LookupCounts(**self._counts)

    @property
    def version(self) -> str | None:
        """The version that lookups read; None before the first lookup and without a version."""
        pointer = self._unexpired()
        return None if pointer is None else pointer.version

    def find(self, user_id: UserId) -> Forecast | None:
        """See `ForecastSource.find`; a text id does not match a number."""
        outcome, forecast = self._find(user_id)
        with self._lock:
            self._counts[outcome] += 1
        return forecast

    def _find(self, user_id: UserId) -> tuple[_Outcome, Forecast | None]:
        try:
            field = field_of(user_id)
        except TypeError:  # nothing is published under such an id
            return "absent", None
        if not self._breaker.admits():
            return "skipped", None
        try:
            pointer, raw = self._ask(field)
        except Exception as error:  # noqa: BLE001  no error of Redis may reach the ranking
            return self._failed(error), None
        self._succeed()
        if pointer is None or raw is None:
            return ("corrupt" if self._pointer_is_corrupt else "absent"), None
        return self._decode(raw, field, pointer)

    def _decode(
        self, raw: bytes, field: bytes, pointer: Pointer
    ) -> tuple[_Outcome, Forecast | None]:
        try:
            record = decode_record(raw, field)
            if not are_not_in_future(record.as_of_us):
                return "from_future", None
            return "found", _forecast(record, pointer)
        except (CorruptRecordError, OverflowError, IndexError) as error:
            return self._corrupt(str(error)), None

    def _ask(self, field: bytes) -> tuple[Pointer | None, bytes | None]:
        """Read the user's record, and in the same exchange the pointer if it is due."""
        pointer = self._unexpired()
        if not self._is_due():
            return pointer, None if pointer is None else self._read(pointer, field)
        if pointer is None:
            pointer = self._adopt(self._redis.get(self._keys.pointer))
            return pointer, None if pointer is None else self._read(pointer, field)
        both = self._redis.pipeline(transaction=False)
        both.get(self._keys.pointer)
        both.hget(self._bucket(pointer, field), field)
        new, raw = both.execute()
        current = self._adopt(new)
        if current is None or current.version == pointer.version:
            return current, raw
        return current, self._read(current, field)

    def _is_due(self) -> bool:
        """Return whether this lookup reads the pointer; all do until the first answer."""
        now = time.monotonic()
        with self._lock:
            if self._refresh_at is None:
                return True
            if now < self._refresh_at:
                return False
            self._refresh_at = now + self._refresh_s
            return True

    def _adopt(self, raw: bytes | None) -> Pointer | None:
        """Use a new pointer; a malformed one counts as none."""
        with self._lock:
            if self._refresh_at is None:
                self._refresh_at = time.monotonic() + self._refresh_s
            if raw != self._pointer_bytes or self._pointer is None:
                try:
                    self._pointer = None if raw is None else Pointer.parse(raw)
                    self._pointer_is_corrupt = False
                except CorruptRecordError as error:
                    self._pointer, self._pointer_is_corrupt = None, True
                    _log.warning("adprior: stored forecasts at %s: %s", self._name, error)
                self._pointer_bytes = raw
        return self._unexpired()

    def _unexpired(self) -> Pointer | None:
        pointer = self._pointer
        return None if pointer is None else pointer.unexpired(time.time())

    def _read(self, pointer: Pointer, field: bytes) -> bytes | None:
        raw: bytes | None = self._redis.hget(self._bucket(pointer, field), field)
        return raw

    def _bucket(self, pointer: Pointer, field: bytes) -> str:
        return self._keys.bucket(pointer.version, pointer.bucket_of(field))

    def _corrupt(self, reason: str) -> _Outcome:
        """Log the first corrupt record of each version."""
        version = self.version or ""
        if self._warned_of != version:
            self._warned_of = version
            _log.warning(
                "adprior: stored forecasts at %s, version %s: a corrupt record (%s); "
                "RedisForecasts.counts has their number",
                self._name,
                version,
                reason,
            )
        return "corrupt"

    def _succeed(self) -> None:
        if self._breaker.is_open:
            _log.warning("adprior: stored forecasts are back: %s", self._name)
        self._breaker.succeed()

    def _failed(self, error: Exception) -> _Outcome:
        if type(error).__name__ == "ResponseError" and "WRONGTYPE" in str(error):
            self._succeed()
            return self._corrupt("a key holds something else")
        was_open = self._breaker.is_open
        self._breaker.fail()
        if self._breaker.is_open and not was_open:
            _log.warning("adprior: no stored forecasts: %s", explain(error, self._name))
        return "failed"


def _forecast(record: Record, pointer: Pointer) -> Forecast:
    return Forecast(
        advertisers=tuple(
            Advertiser(advertiser_id=advertiser_id, name="", log_prob=log_prob)
            for advertiser_id, log_prob in zip(
                record.advertiser_ids.tolist(), record.log_probs.tolist(), strict=True
            )
        ),
        exact=record.exact,
        missing_mass=record.missing_mass,
        bundle_id=pointer.bundle_ids[record.bundle],
        source=Source.STORED,
        made_at=_EPOCH + timedelta(microseconds=record.as_of_us),
    )
