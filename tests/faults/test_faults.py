"""During each fault of the table, a client always returns; afterwards forecasts come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from adprior_client import RankingClient
from faults.conftest import Report
from faults.fault_result import FaultResult
from faults.setups import Kind, Setup
from faults.table import FAULTS, Fault
from faults.traffic import Traffic, call_healthy_server

pytestmark = pytest.mark.triton

GIVE_UP_S = 30.0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault,
            id=fault.name.replace(" ", "-"),
            marks=() if fault.in_short else pytest.mark.long_form,
        )
        for fault in FAULTS
    ],
)
def test_a_client_always_returns_and_forecasts_come_back(
    find_setup: Callable[[Kind], Setup], fault: Fault, report: Report, is_long: bool
) -> None:
    setup = find_setup(fault.kind)
    before_s, lasts_s, after_s = (4, 10, 6) if is_long else (0.5, 1.5, 0.5)
    setup.server.await_ready()
    requests = call_healthy_server(setup.config, **setup.client)
    config = replace(setup.config, **fault.settings)
    with RankingClient(config, **setup.client) as client:
        with Traffic(client, requests) as traffic:
            time.sleep(before_s)
            _await_live_answer(traffic, 0)
            fault.begin(setup)
            if fault.end is not None:
                time.sleep(lasts_s)
                fault.end(setup)
            repaired_at = time.monotonic()
            _await_live_answer(traffic, repaired_at)
            time.sleep(after_s)
        result = FaultResult.of(fault.name, traffic, repaired_at)
    report.results.append(result)
    assert result.failures(is_timed=is_long) == []


def _await_live_answer(traffic: Traffic, after: float) -> None:
    """Wait for a live answer to a call that began after a time; give up at some point."""
    end = time.monotonic() + GIVE_UP_S
    while traffic.first_live_answer(after) is None and time.monotonic() < end:
        time.sleep(0.05)
