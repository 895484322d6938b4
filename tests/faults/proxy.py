"""A TCP proxy that damages what passes through it, in a process of its own.

``python -m faults.proxy PORT`` prints the port that it listens on, and reads one mode a line:

=================  ============================================================
``pass``           nothing is damaged
``delay SECONDS``  everything arrives later
``trickle BYTES``  answers come at this many bytes a second
``truncate BYTES`` the connection ends after this many bytes of an answer
``reset``          connections are reset: new ones at once, old ones at an answer
``swallow``        everything is read and nothing is sent
=================  ============================================================
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

_CHUNK = 65536


class Proxy:
    """The proxy's process; a context manager that ends it.

    Args:
        upstream: ``HOST:PORT`` of the server.
    """

    def __init__(self, upstream: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.proxy", upstream.rpartition(":")[2]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.url = f"localhost:{int(self._read_line())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")

    def set(self, mode: str) -> None:
        """Change the mode, and wait until it is in effect."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode}\n")
        self._process.stdin.flush()
        assert self._read_line() == mode

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class _Relay:
    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._mode, self._value = "pass", 0.0

    def set(self, line: str) -> None:
        mode, _, value = line.partition(" ")
        self._mode, self._value = mode, float(value or 0)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the server for a client's connection, and relay both ways."""
        if self._mode == "reset":
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            _reset(writer)
            return
        await asyncio.gather(
            self._pump(reader, up_writer, is_answer=False),
            self._pump(up_reader, writer, is_answer=True),
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if not await self._relay(data, writer, is_answer=is_answer):
                    return
        except OSError:
            pass
        finally:
            writer.close()

    async def _relay(self, data: bytes, writer: asyncio.StreamWriter, *, is_answer: bool) -> bool:
        """Relay a chunk in the present mode; return whether the connection goes on."""
        mode, value = self._mode, self._value
        if mode == "swallow":
            return True
        if mode == "delay":
            await asyncio.sleep(value)
        if is_answer and mode == "reset":
            _reset(writer)
            return False
        if is_answer and mode == "truncate":
            writer.write(data[: int(value)])
            await writer.drain()
            return False
        if is_answer and mode == "trickle":
            step = max(1, int(value / 20))
            while data and self._mode == "trickle":
                writer.write(data[:step])
                await writer.drain()
                data = data[step:]
                await asyncio.sleep(0.05)
        writer.write(data)
        await writer.drain()
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST: with no time to linger, unsent data is discarded."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _serve(upstream_port: int) -> None:
    relay = _Relay(upstream_port)
    server = await asyncio.start_server(relay.accept, "localhost", 0, family=socket.AF_INET)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        relay.set(line.strip())
        print(line.strip(), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
