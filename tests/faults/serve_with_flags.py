"""``adprior serve`` with more flags of tritonserver, for states that its own options refuse.

For example, a certificate expires while a tritonserver runs.

``python -m faults.serve_with_flags --grpc-use-ssl=true -- --repository REPO ...``
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from adprior_runtime import cli
from adprior_runtime.server.launch import Launch


def main(arguments: list[str]) -> int:
    """Serve; the arguments before ``--`` are tritonserver's."""
    place = arguments.index("--")
    flags, options = arguments[:place], arguments[place + 1 :]

    compose = Launch.command

    def compose_more(*args: Any) -> list[str]:
        return [*compose(*args), *flags]

    with mock.patch.object(Launch, "command", compose_more):
        return cli.main(["serve", *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
