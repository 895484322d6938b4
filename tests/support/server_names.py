"""DNS names and files of servers that a test changes, for clients that follow them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from adprior_client import server_sources
from support.fake_triton import FakeTriton


class Names:
    """Stands in for the system's resolver, for the names that a test sets; others are real.

    Attributes:
        answers: The addresses of each name, or the error that the resolver raises.
        asked: How often each name was asked for.
        may_answer: Cleared to make the resolver hang.
        may_answer_for: The same for single names.
    """

    def __init__(self, resolve: Callable[[str, int], list[str]]) -> None:
        self._resolve = resolve
        self.answers: dict[str, list[str] | OSError] = {}
        self.asked: Counter[str] = Counter()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.may_answer_for: dict[str, threading.Event] = {}

    def hold(self, name: str) -> threading.Event:
        """Make the resolver hang for one name, until the event is set."""
        return self.may_answer_for.setdefault(name, threading.Event())

    def look_up(self, name: str, port: int) -> list[str]:
        self.asked[name] += 1
        assert self.may_answer_for.get(name, self.may_answer).wait(60)
        if name not in self.answers:
            return self._resolve(name, port)
        answer = self.answers[name]
        if isinstance(answer, OSError):
            raise answer
        return list(answer)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names(server_sources.look_up)
    monkeypatch.setattr(server_sources, "look_up", found.look_up)
    yield found
    for event in (found.may_answer, *found.may_answer_for.values()):
        event.set()


def write_servers(path: Path, urls: Iterable[str]) -> str:
    """Replace a file of servers as an operator should, by a rename; return its URL."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{url}\n" for url in urls))
    new.rename(path)
    return f"file://{path}"


@contextmanager
def tritons_on_one_port(count: int) -> Iterator[list[FakeTriton]]:
    """Start servers on 127.0.0.1, 127.0.0.2 ..., as the addresses of one name."""
    with ExitStack() as stack:
        servers = [FakeTriton().start()]
        port = int(servers[0].url.rpartition(":")[2])
        stack.callback(servers[0].stop)
        for number in range(2, count + 1):
            servers.append(FakeTriton().start(port, host=f"127.0.0.{number}"))
            stack.callback(servers[-1].stop)
        yield servers


def host_of(server: FakeTriton) -> str:
    return server.url.rpartition(":")[0]


def port_of(server: FakeTriton) -> int:
    return int(server.url.rpartition(":")[2])
