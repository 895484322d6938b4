"""Clients under load that follow a file of servers."""

from __future__ import annotations

import threading
from collections import Counter

from adprior_client import ClientConfig, RetrievalClient
from support.client_calls import USER
from support.processes import await_true


class Load:
    """Two clients that follow the file, each with calls of many users.

    Attributes:
        reasons: How many calls had which `reason`; None for a live answer.
    """

    def __init__(self, url: str) -> None:
        config = ClientConfig(urls=(url,), discovery_interval_s=0.2, deadline_s=20)
        self.clients = [RetrievalClient(config) for _ in range(2)]
        self.reasons: Counter[str | None] = Counter()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(client, start))
            for client in self.clients
            for start in range(2)
        ]

    def _call(self, client: RetrievalClient, start: int) -> None:
        user = start
        while not self._end.is_set():
            user += 2
            reason = client.forecast(USER, user_id=user % 1000).reason
            with self._lock:
                self.reasons[reason] += 1

    def listed(self) -> list[set[str]]:
        """Return the servers that each client knows."""
        return [{server.url for server in client._fleet.servers} for client in self.clients]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        for client in self.clients:
            client.close()

    def assert_all_follow(self, urls: set[str]) -> None:
        """Wait until all clients know these servers and have called them; no call was lost."""
        await_true(lambda: self.listed() == [urls, urls], timeout_s=20)
        done = self.reasons.total()
        await_true(lambda: self.reasons.total() > done + 40)
        assert dict(self.reasons) == {None: self.reasons.total()}
