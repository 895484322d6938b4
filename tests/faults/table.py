"""The faults; a new one is one entry of `FAULTS`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, PRIOR_HEAD, TOKENIZER
from faults.setups import Kind, Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that breaks below a client, and its repair.

    Attributes:
        name: Unique.
        kind: The kind of setup.
        begin: Causes the fault.
        end: Repairs it; None if the fault is over at once, or only the supervisor repairs it.
        in_short: Whether the short form of the suite includes it.
        settings: Client settings, if not the defaults.
    """

    name: str
    kind: Kind = Kind.PLAIN
    begin: Callable[[Setup], Any]
    end: Callable[[Setup], Any] | None = None
    in_short: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


# Every call is sent, and waits until its deadline.
_NO_BREAKER = {"breaker_failures": 10**9, "health_interval_s": 0}


def _kill_stub(model: str) -> Fault:
    return Fault(
        name=f"process of {model} killed",
        begin=lambda setup: setup.server.stubs(model)[0].kill(),
        in_short=model == LLM_ENGINE,
    )


def _stop_stubs(model: str) -> Fault:
    stopped: list[psutil.Process] = []

    def signal_all(number: signal.Signals) -> None:
        for process in stopped:
            process.send_signal(number)

    def stop(setup: Setup) -> None:
        stopped[:] = setup.server.stubs(model)
        signal_all(signal.SIGSTOP)

    return Fault(
        name=f"processes of {model} stopped, continued",
        begin=stop,
        end=lambda _: signal_all(signal.SIGCONT),
    )


def _pause(
    seconds: float, name: str, find: Callable[[Setup], list[psutil.Process]], *, in_short: bool
) -> Fault:
    """Suspend processes and resume them after some seconds."""

    def pause(setup: Setup) -> None:
        processes = find(setup)
        for process in processes:
            process.suspend()
        time.sleep(seconds)
        for process in processes:
            process.resume()

    return Fault(name=f"{name} paused for {seconds:g} s", begin=pause, in_short=in_short)


def _proxied(
    name: str, mode: str, *, in_short: bool = False, settings: Mapping[str, Any] | None = None
) -> Fault:
    def set_mode(setup: Setup, mode: str) -> None:
        assert setup.proxy is not None
        setup.proxy.set(mode)

    return Fault(
        name=name,
        kind=Kind.PROXY,
        begin=lambda setup: set_mode(setup, mode),
        end=lambda setup: set_mode(setup, "pass"),
        in_short=in_short,
        settings=settings or {},
    )


def _certified(name: str, *, shown: str = "good", trusted: str = "known-authority") -> Fault:
    def restart(setup: Setup, shown: str, trusted: str) -> None:
        assert setup.certificates is not None
        setup.certificates.use(shown=shown, trusted=trusted)
        setup.server.restart()

    return Fault(
        name=name,
        kind=Kind.TLS,
        begin=lambda setup: restart(setup, shown, trusted),
        end=lambda setup: restart(setup, "good", "known-authority"),
    )


def _token(name: str, sent: str | None, *, in_short: bool = False) -> Fault:
    def send(setup: Setup, token: str | None) -> None:
        assert setup.token is not None
        setup.token.sent = token

    return Fault(
        name=name,
        kind=Kind.TOKEN,
        begin=lambda setup: send(setup, sent),
        end=lambda setup: send(setup, setup.token.right if setup.token else None),
        in_short=in_short,
    )


def _pause_server(name: str, settings: Mapping[str, Any]) -> Fault:
    return Fault(
        name=name,
        begin=lambda setup: setup.server.pause(),
        end=lambda setup: setup.server.resume(),
        settings=settings,
    )


# Triton gives a process up after a second.
_PAUSES_S = (0.7, 1.2, 1.6, 2.2, 3, 8)

FAULTS = [
    Fault(name="nothing", begin=lambda _: None, end=lambda _: None),
    Fault(
        name="server killed (-9)",
        begin=lambda setup: setup.server.tritonserver.kill(),
        in_short=True,
    ),
    *map(_kill_stub, (TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER, PRIOR_HEAD)),
    _stop_stubs(LLM_ENGINE),
    *(
        _pause(
            seconds,
            "a process of llm_engine",
            lambda setup: setup.server.stubs(LLM_ENGINE)[:1],
            in_short=seconds == 1.6,
        )
        for seconds in _PAUSES_S
    ),
    *(
        _pause(
            seconds,
            "adprior serve and all below it",
            lambda setup: setup.server.processes(),
            in_short=False,
        )
        for seconds in _PAUSES_S
    ),
    _pause_server("server stopped, continued", {}),
    _pause_server("server stopped, no circuit breaker", _NO_BREAKER),
    # It returns when the server is ready again.
    Fault(name="server restarted", begin=lambda setup: setup.server.restart()),
    _proxied("network slow by 1 s", "delay 1"),
    _proxied("network slow, no circuit breaker", "delay 1", settings=_NO_BREAKER),
    _proxied("answers trickle, 200 B/s", "trickle 200"),
    _proxied("answers cut after 40 bytes", "truncate 40", in_short=True),
    _proxied("connections reset", "reset"),
    _proxied("packets swallowed", "swallow"),
    _certified("certificate expired", shown="expired"),
    _certified("certificate of a stranger", shown="unknown"),
    _certified("client's certificate not trusted", trusted="unknown-authority"),
    _token("no token", None),
    _token("wrong token", "wrong", in_short=True),
]
