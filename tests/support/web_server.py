"""A web server on loopback for a directory: with or without ranges, and with faults on request."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebServer(ThreadingHTTPServer):
    """The server.

    Attributes:
        has_ranges: Whether it gives parts of files.
        fault: Called with each path and the number of earlier requests for it; returns a status to
            refuse with, ``"cut"`` to break the connection after half of the body, or None.
        sent_bytes: Bytes of bodies that were sent.
    """

    daemon_threads = True

    def __init__(self, directory: Path, *, has_ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
        self.has_ranges = has_ranges
        self.fault: Callable[[str, int], int | str | None] = lambda _path, _earlier: None
        self.requests: Counter[str] = Counter()
        self.sent_bytes = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no error."""


class _Handler(SimpleHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        with self.server.lock:
            earlier = self.server.requests[self.path]
            self.server.requests[self.path] += 1
        fault = self.server.fault(self.path, earlier)
        path = Path(self.translate_path(self.path))
        if isinstance(fault, int):
            self.send_error(fault)
        elif not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(path.read_bytes(), is_cut=fault == "cut")

    def _send(self, body: bytes, *, is_cut: bool) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status = HTTPStatus.OK
        if found is not None and self.server.has_ranges:
            body, status = body[int(found[1]) : int(found[2]) + 1], HTTPStatus.PARTIAL_CONTENT
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if is_cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)
        with self.server.lock:
            self.server.sent_bytes += len(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_web_server(directory: Path, *, has_ranges: bool = True) -> Iterator[WebServer]:
    with WebServer(directory, has_ranges=has_ranges) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(20)
