"""``adprior explore`` in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import COMMAND, await_true


@contextmanager
def explore(*arguments: str | Path, token: str | None = None) -> Iterator[Explorer]:
    """Start the command, wait until its servers are ready, and end it."""
    explorer = Explorer(*arguments)
    try:
        explorer.await_address()
        await_true(lambda: explorer.is_ready(token), explorer.output, timeout_s=60)
        yield explorer
    finally:
        explorer.stop()


class Explorer:
    """The running command; who makes it must `stop` it.

    Attributes:
        url: The page's address; empty until `await_address`.
    """

    def __init__(self, *arguments: str | Path) -> None:
        self.arguments = arguments
        self.url = self.output = ""
        self.process = self._start()

    def await_address(self) -> None:
        """Wait until the command has printed the page's address; fail if it ends before."""
        await_true(lambda: self._url() or self.process.poll() is not None, timeout_s=60)
        self.url = self._url()
        assert self.url, self.output

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "explore", *map(str, self.arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.output += line

    def _url(self) -> str:
        found = re.search(r"https?://\S+:\d+/?", self.output)
        return found.group().rstrip("/") if found else ""

    def is_ready(self, token: str | None) -> bool:
        """Return whether every server of the page is ready."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.url}/api/state", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return all(side["ready"] for side in json.load(answer)["sides"])

    def stop(self) -> None:
        """End the process; Ctrl-C is how a person ends it."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
