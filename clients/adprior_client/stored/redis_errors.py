"""Explains an error of Redis in one line that quotes nothing of a command."""

from __future__ import annotations

import re
from typing import Final

from adprior_runtime.errors import EnvironmentProblemError


class RedisProblemError(EnvironmentProblemError):
    """Redis cannot be reached, or refuses a command."""


_MEANINGS: Final[dict[str, str]] = {
    "NOAUTH": "it requires a password, and none was given",
    "WRONGPASS": "wrong user name or password",
    "NOPASS": "a password was given, but this user has none",
    "NOPERM": "this user may not do that: its ACL lacks a command or the namespace's keys",
    "OOM": "it is out of memory (maxmemory)",
    "READONLY": "it is a read-only replica: give the primary's address",
    "LOADING": "it is still loading its data: try again when it is done",
    "MISCONF": "it refuses writes because it cannot save to disk (MISCONF)",
    "WRONGTYPE": "a key of this namespace holds something else: choose another namespace",
    "MOVED": "it is a Redis Cluster, expected a single primary",
    "CLUSTERDOWN": "it is a Redis Cluster that is down; expected a single primary",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "it refuses writes: too few replicas follow it",
}
"""The explanation for the first word of Redis' error."""

_MESSAGES: Final = (
    (
        re.compile(r"invalid username.(or.)?password", re.IGNORECASE),
        "WRONGPASS",
    ),
    (re.compile(r"authentication required", re.IGNORECASE), "NOAUTH"),
    (re.compile(r"without any password configured|no password is set", re.IGNORECASE), "NOPASS"),
    (re.compile(r"command not allowed when used memory", re.IGNORECASE), "OOM"),
    (re.compile(r"can't write against a read only replica", re.IGNORECASE), "READONLY"),
    (re.compile(r"loading the dataset", re.IGNORECASE), "LOADING"),
    (re.compile(r"has no permissions", re.IGNORECASE), "NOPERM"),
)
"""The first word of errors from which the client library removes it."""


def explain(error: BaseException, name: str) -> str:
    """Return what went wrong, in one line.

    Redis' own text is not quoted: it may hold a command's arguments, and so a user's id.

    Args:
        error: An error of the package redis, or of the system.
        name: The server, as in `RedisAddress.name`.
    """
    return f"{name}: {_reason(error)}"


def _reason(error: BaseException) -> str:
    text, kind = str(error), type(error).__name__
    if word := _word_of(text):
        return _MEANINGS[word]
    if kind == "TimeoutError":
        return "no answer in time: it is overloaded, stopped or out of reach"
    if "certificate" in text.lower() or "ssl" in text.lower():
        reason = re.search(r"certificate verify failed[^(\]]*|WRONG_VERSION_NUMBER", text)
        return f"no TLS connection: {reason[0].strip() if reason else 'handshake failed'}"
    if kind in {"ConnectionError", "MaxConnectionsError"} or isinstance(error, OSError):
        return f"no connection: {_network_reason(text)}"
    words = re.findall(r"\b[A-Z]{3,}\b", text)
    return f"it refused a command: {words[0] if words else kind}"


def _word_of(text: str) -> str:
    """Return the word of `_MEANINGS` that an error began with, empty without one."""
    for pattern, word in _MESSAGES:
        if pattern.search(text):
            return word
    words = [*text.partition("error: ")[2].split()[:1], *text.split()[:1]]
    return next((word for word in words if word in _MEANINGS), "")


def _network_reason(text: str) -> str:
    known = (
        ("No connection available", "all of them are busy"),
        ("refused", "nothing listens there"),
        ("No such file", "no such socket"),
        ("not known", "no such host"),
        ("resolution", "no such host"),
        ("unreachable", "no route to it"),
        ("closed by server", "it closed the connection; was it stopped, or does it speak TLS?"),
        ("reset", "it closed the connection"),
        ("Broken pipe", "it closed the connection"),
        ("Invalid Database", "it has no such database"),
        ("denied", "permission denied"),
    )
    return next((said for part, said in known if part.lower() in text.lower()), "it was lost")
