from __future__ import annotations

import socket
from pathlib import Path

from adprior_bench.stored.redis_comparison import _measure_write
from support.processes import await_true
from support.redis_server import needs_redis, running_redis

BUFFERED_BYTES = 1 << 20


@needs_redis
def test_a_connections_buffer_is_not_counted_as_stored(tmp_path: Path) -> None:
    with (
        running_redis(tmp_path) as server,
        server.client() as client,
        socket.create_connection(("127.0.0.1", server.port)) as other,
    ):

        def write() -> tuple[int, float]:
            client.mset({f"key {number}": "value" for number in range(1000)})
            # The command is not complete, so Redis keeps it in the connection's buffer.
            other.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % (2 * BUFFERED_BYTES))
            other.sendall(b"x" * BUFFERED_BYTES)
            await_true(lambda: client.info("memory")["mem_clients_normal"] > BUFFERED_BYTES)
            return 1, 1.0

        _, _, stored_bytes = _measure_write(client, write)
    assert 0 < stored_bytes < BUFFERED_BYTES / 4
