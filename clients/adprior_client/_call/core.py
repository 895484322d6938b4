"""What all clients share: settings, servers, switches, and where stored forecasts come in.

No input or output happens here; see `adprior_client._call.attempts`.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from adprior_client._call import encoding
from adprior_client._call.attempts import Call, Lookup, Steps
from adprior_client._call.checks import check_number
from adprior_client._call.server_choice import Fleet
from adprior_client.config import ClientConfig
from adprior_client.errors import InvalidArgumentError
from adprior_client.results import Forecast
from adprior_client.stored.forecast_time import is_from_future
from adprior_client.types import Reason, Source, UserId

_log = logging.getLogger("adprior_client")
_LOOKUP_S: Final = 0.01
"""A source has so long even when the deadline is over: what is in memory takes less."""


class Core:
    """A client without its channels.

    Args:
        config: How to behave.
        has_stored: Whether a `Lookup` can be answered.
        kill_switch: Asked at each call: while it is true, nothing else is.

    Raises:
        InvalidArgumentError: The switch is a coroutine function, which would always be true.
    """

    def __init__(
        self, config: ClientConfig, *, has_stored: bool, kill_switch: Callable[[], bool] | None
    ) -> None:
        if inspect.iscoroutinefunction(kill_switch):
            raise InvalidArgumentError(
                "kill_switch: found a coroutine function, expected a plain one"
            )
        self.config = config
        self.fleet = Fleet(config)
        self._has_stored = has_stored
        self._kill_switch = kill_switch

    def begin_anew(self) -> None:
        """Forget what is known of the servers: another process found it out."""
        self.fleet = Fleet(self.config)

    def begin(
        self, key: bytes, user_id: UserId | None, deadline_s: float | None, request_id: str | None
    ) -> Call:
        """Return a call that starts now.

        Raises:
            InvalidArgumentError: An argument has the wrong type.
        """
        timeout_s = self.config.deadline_s
        if deadline_s is not None:
            timeout_s = check_number(deadline_s, "deadline_s")
        if user_id is not None:
            key = _key_of(user_id)
        if request_id is not None:
            _check_request_id(request_id)
        return Call(
            key=key,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            request_id=request_id or uuid.uuid4().hex,
            user_id=user_id,
        )

    def reason_to_hold(self, *, treatment: bool) -> Reason | None:
        """Return why nothing is to be asked, None where something is."""
        if self._is_killed():
            return Reason.KILL_SWITCH
        return None if treatment else Reason.CONTROL

    def reserve_s(self, call: Call) -> float:
        """Return what is kept of a deadline for a stored forecast; half of one that is shorter."""
        if not self._looks_up(call):
            return 0.0
        reserve_s = self.config.stored_reserve_s
        return reserve_s if reserve_s < call.timeout_s else call.timeout_s / 2

    def stored(self, call: Call) -> Steps[Forecast | None]:
        """Look the user's stored forecast up; None unless it can be used."""
        if call.user_id is None or not self._looks_up(call):
            return None
        left = max(call.deadline - time.monotonic(), _LOOKUP_S)
        found = yield Lookup(call.user_id, left)
        if found is None:
            return None
        try:
            return self._usable(found, call)
        except Exception as error:  # noqa: BLE001  whatever the caller's own source gives
            _log.warning("adprior: a stored forecast is malformed: %s", type(error).__name__)
            return None

    def _usable(self, found: Any, call: Call) -> Forecast | None:
        encoding.encode_forecast(found)
        if not found.advertisers or found.age_s is None:
            return None
        if is_from_future(found.made_at) or not found.age_s <= self.config.stored_max_age_s:
            return None
        usable: Forecast = replace(
            found, source=Source.STORED, request_id=call.request_id, withheld=()
        )
        return usable

    def _looks_up(self, call: Call) -> bool:
        return self._has_stored and call.user_id is not None

    def _is_killed(self) -> bool:
        path = self.config.kill_switch_file
        if path is not None and os.path.exists(path):  # noqa: PTH110  twice as fast
            return True
        try:
            return self._kill_switch is not None and bool(self._kill_switch())
        except Exception as error:  # noqa: BLE001  the caller's own code
            _log.warning("adprior: the kill switch failed (%s): taken as on", type(error).__name__)
            return True


def check_flag(treatment: Any) -> None:
    """Refuse a ``treatment`` that is neither True nor False.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not isinstance(treatment, bool):
        raise InvalidArgumentError(
            f"treatment: found {type(treatment).__name__}, expected True or False"
        )


def _key_of(user_id: Any) -> bytes:
    if isinstance(user_id, np.integer):
        user_id = int(user_id)
    if isinstance(user_id, bool) or not isinstance(user_id, str | int):
        raise InvalidArgumentError(
            f"user_id: found {type(user_id).__name__}, expected text or an integer"
        )
    return repr(user_id).encode()


def _check_request_id(request_id: Any) -> None:
    if not isinstance(request_id, str):
        raise InvalidArgumentError(f"request_id: found {type(request_id).__name__}, expected text")
    if not (request_id.isascii() and request_id.isprintable()) or len(request_id) > 256:
        raise InvalidArgumentError("request_id: expected up to 256 printable ASCII characters")
