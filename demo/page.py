"""The shipped model on a real tritonserver, and the page of ``adprior explore`` on top of it.

``make explore`` runs it. Ctrl-C ends both. Options that it does not know go to ``adprior explore``,
such as ``--port 9000``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from adprior_runtime.cli import main as adprior
from adprior_runtime.errors import AdpriorError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from shipped_model import HERE, build_repository


def main() -> int:
    """Serve the model and the page until Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="another bundle, instead of the shipped model")
    arguments, others = parser.parse_known_args()
    users = [str(path) for path in sorted((HERE / "users").glob("*.json"))]
    grpc_port, http_port, metrics_port = free_ports(3)
    try:
        with tempfile.TemporaryDirectory(prefix="adprior-explore-") as directory:
            repository = Path(directory) / "repository"
            build_repository(repository, arguments.bundle)
            print("Starting tritonserver ...", flush=True)
            with TritonServer.start(
                repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
            ) as server:
                page = ["explore", "--url", server.grpc_address, "--users", *users, *others]
                return adprior(page)
    except AdpriorError as error:
        print(f"explore: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
