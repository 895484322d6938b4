"""The table of faults: a new one is one entry."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, PRIOR_HEAD, TOKENIZER
from faults.sites import Kind, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that breaks below a client, and is mended.

    Attributes:
        name: Unique.
        kind: The site that it happens at.
        begin: Breaks it.
        end: Mends it, and returns when that is done; None where there is nothing to mend but for
            the supervisor: then the fault is over as soon as it happened.
        in_short: Whether it belongs to the short form.
        settings: Of the client, where they are not the defaults.
    """

    name: str
    kind: Kind
    begin: Callable[[Site], Any]
    end: Callable[[Site], Any] | None = None
    in_short: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


# Every call is sent, and waits as long as it may: the hardest on deadlines.
_NO_BREAKER = {"breaker_failures": 10**9, "health_interval_s": 0}


def _kill_stub(model: str) -> Fault:
    return Fault(
        name=f"process of {model} killed",
        kind=Kind.PLAIN,
        begin=lambda site: site.node.stubs(model)[0].kill(),
        in_short=model == LLM_ENGINE,
    )


def _stop_stubs(model: str) -> Fault:
    stopped: list[psutil.Process] = []

    def signal_all(number: signal.Signals) -> None:
        for process in stopped:
            process.send_signal(number)

    def stop(site: Site) -> None:
        stopped[:] = site.node.stubs(model)
        signal_all(signal.SIGSTOP)

    return Fault(
        name=f"processes of {model} stopped, continued",
        kind=Kind.PLAIN,
        begin=stop,
        end=lambda _: signal_all(signal.SIGCONT),
    )


def _pause(seconds: float, whose: str, find: Callable[[Site], list[psutil.Process]]) -> Fault:
    """Stop processes in their tracks, whatever they are at, and let them go on."""

    def pause(site: Site) -> None:
        processes = find(site)
        for process in processes:
            process.suspend()
        time.sleep(seconds)
        for process in processes:
            process.resume()

    return Fault(
        name=f"{whose} paused for {seconds:g} s",
        kind=Kind.PLAIN,
        begin=pause,
        in_short=(seconds, whose) == (1.6, ONE_PROCESS),
    )


def _proxied(
    name: str, mode: str, *, in_short: bool = False, settings: Mapping[str, Any] | None = None
) -> Fault:
    def set_mode(site: Site, mode: str) -> None:
        assert site.proxy is not None
        site.proxy.set(mode)

    return Fault(
        name=name,
        kind=Kind.PROXY,
        begin=lambda site: set_mode(site, mode),
        end=lambda site: set_mode(site, "pass"),
        in_short=in_short,
        settings=settings or {},
    )


def _certified(name: str, *, shown: str = "good", trusted: str = "ours") -> Fault:
    def restart(site: Site, shown: str, trusted: str) -> None:
        assert site.certificates is not None
        site.certificates.present(shown)
        site.certificates.trust(trusted)
        site.node.restart()

    return Fault(
        name=name,
        kind=Kind.TLS,
        begin=lambda site: restart(site, shown, trusted),
        end=lambda site: restart(site, "good", "ours"),
    )


def _token(name: str, sent: str | None, *, in_short: bool = False) -> Fault:
    def send(site: Site, token: str | None) -> None:
        assert site.token is not None
        site.token.sent = token

    return Fault(
        name=name,
        kind=Kind.TOKEN,
        begin=lambda site: send(site, sent),
        end=lambda site: send(site, site.token.right if site.token else None),
        in_short=in_short,
    )


# From what Triton survives to far beyond the second after which it gives a process up.
PAUSES_S = (0.7, 1.2, 1.6, 2.2, 3, 8)
ONE_PROCESS, ALL_PROCESSES = "a process of llm_engine", "adprior serve and all below it"

FAULTS = [
    Fault(
        name="nothing",
        kind=Kind.PLAIN,
        begin=lambda _: None,
        end=lambda _: None,
    ),
    Fault(
        name="server killed (-9)",
        kind=Kind.PLAIN,
        begin=lambda site: site.node.server.kill(),
        in_short=True,
    ),
    _kill_stub(TOKENIZER),
    _kill_stub(LLM_ENGINE),
    _kill_stub(ADVERTISER_DECODER),
    _kill_stub(PRIOR_HEAD),
    _stop_stubs(LLM_ENGINE),
    *(
        _pause(seconds, ONE_PROCESS, lambda site: site.node.stubs(LLM_ENGINE)[:1])
        for seconds in PAUSES_S
    ),
    *(_pause(seconds, ALL_PROCESSES, lambda site: site.node.processes()) for seconds in PAUSES_S),
    Fault(
        name="server stopped, continued",
        kind=Kind.PLAIN,
        begin=lambda site: site.node.pause(),
        end=lambda site: site.node.resume(),
    ),
    Fault(
        name="server stopped, no circuit breaker",
        kind=Kind.PLAIN,
        begin=lambda site: site.node.pause(),
        end=lambda site: site.node.resume(),
        settings=_NO_BREAKER,
    ),
    Fault(
        name="server restarted",
        kind=Kind.PLAIN,
        begin=lambda site: site.node.restart(),  # returns when it is ready again
    ),
    _proxied("network slow by 1 s", "delay 1"),
    _proxied("network slow, no circuit breaker", "delay 1", settings=_NO_BREAKER),
    _proxied("answers trickle, 200 B/s", "trickle 200"),
    _proxied("answers cut after 40 bytes", "truncate 40", in_short=True),
    _proxied("connections reset", "reset"),
    _proxied("packets swallowed", "swallow"),
    _certified("certificate expired", shown="expired"),
    _certified("certificate of a stranger", shown="strangers"),
    _certified("client's certificate not trusted", trusted="other"),
    _token("no token", None),
    _token("wrong token", "wrong", in_short=True),
]
