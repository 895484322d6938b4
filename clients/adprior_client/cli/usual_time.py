"""Adds the server's usual time to the error about a deadline that has passed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from tritonclient.grpc import InferenceServerClient

from adprior_client._call.credentials import Credentials
from adprior_client._call.wire import channel_settings
from adprior_client.config import ClientConfig
from adprior_client.errors import DeadlineError
from adprior_client.server_list import each_server
from adprior_client.server_sources import Address

_ASKED_WITHIN_S: Final = 2.0


@contextmanager
def explain_deadline(config: ClientConfig, model: str) -> Iterator[None]:
    """Raise a `DeadlineError` again, with what the server usually takes for that model."""
    try:
        yield
    except DeadlineError as error:
        if (hint := _hint(config, model)) is None:
            raise
        raise DeadlineError(f"{error}; {hint}") from error


def _hint(config: ClientConfig, model: str) -> str | None:
    """Return a clause for the message; None if the server does not tell its times."""
    try:
        usual_s = _ask_mean_seconds(config, model)
    except Exception:  # noqa: BLE001  the deadline itself is about to be reported
        return None
    if usual_s is None:
        return "this server has not answered such a call yet: give a longer --timeout"
    if usual_s > config.deadline_s:
        return f"this server's answers take {usual_s:.2g} s on average: give a longer --timeout"
    return f"this server's answers take {usual_s:.2g} s on average, so it may be overloaded"


def _ask_mean_seconds(config: ClientConfig, model: str) -> float | None:
    """Return the mean time of the model's successful calls, queues included; None before any."""
    server = each_server(replace(config, deadline_s=_ASKED_WITHIN_S))[0]
    (url,), credentials = server.urls, Credentials(config)
    settings: dict[str, Any] = channel_settings(server, Address(url), is_only=True)
    with InferenceServerClient(url, creds=credentials.channel, **settings) as client:
        headers = dict(config.metadata) | credentials.token
        answer = client.get_inference_statistics(
            model, headers=headers, client_timeout=_ASKED_WITHIN_S
        )
    (statistics,) = answer.model_stats
    done = statistics.inference_stats.success
    return done.ns / done.count / 1e9 if done.count else None
