from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adprior_explore.commands import explore
from adprior_runtime.errors import InvalidInputError
from support.client_calls import run_command
from support.extras import code_that_hides, modules_without
from support.processes import run
from support.server_names import write_servers


def test_a_list_of_several_servers_is_refused(tmp_path: Path) -> None:
    listed = write_servers(tmp_path / "servers", ["10.0.0.1:8001", "10.0.0.2:8001"])
    with pytest.raises(InvalidInputError, match="found 2 servers, expected one"):
        run_command(explore, "--url", listed)


def test_the_command_needs_its_own_extra_only() -> None:
    code = code_that_hides(modules_without("explore"))
    done = run(sys.executable, "-c", f"{code}\nimport adprior_explore.commands.explore")
    assert done.returncode == 0, done.stderr
