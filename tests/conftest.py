"""Settings and shared fixtures; ``pytest --long`` (``make test-all``) runs the long forms too."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support", "integration", "faults")
pytest_plugins = (
    "support.fake_backend",
    "support.fake_triton",
    "support.publisher",
    "support.server_names",
    "support.shared_files",
    "support.tiny_bundle",
)

# No deadline: the time of an example depends on the load of the machine.
settings.register_profile("adprior", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("adprior")

# Waiting OpenMP threads (torch, LightGBM) spin, which makes small work up to 20 times slower on a
# busy machine. The libraries read this when they load, also in child processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# A background job inherits Ctrl-C as ignored, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run long forms too, and time the faults")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long_form: only with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long_form"):
                item.add_marker(pytest.mark.skip(reason="only with --long"))


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether the long forms run."""
    return bool(pytestconfig.getoption("--long"))
