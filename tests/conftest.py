"""Long forms run only when asked for: ``pytest --long``, ``make test-all``."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A property holds or does not; how long an example takes is the machine's affair.
settings.register_profile("adprior", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("adprior")

# OpenMP's threads (torch's, LightGBM's) spin while they wait for one another. On a busy machine
# that makes small work up to 20 times slower. Read when the libraries load, here and in children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long forms too, faults timed")


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
