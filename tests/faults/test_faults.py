"""Each fault of the table below a client under load: it always answers, and forecasts come back."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from adprior_client import RankingClient
from faults.conftest import Report
from faults.sites import Site
from faults.table import FAULTS, Fault
from faults.traffic import Traffic, ask_while_healthy
from faults.verdict import Verdict

pytestmark = pytest.mark.triton

GIVE_UP_S = 30.0


@pytest.mark.parametrize(
    ("site", "fault"),
    [
        pytest.param(
            fault.kind,
            fault,
            id=fault.name.replace(" ", "-"),
            marks=() if fault.in_short else pytest.mark.long_form,
        )
        for fault in FAULTS
    ],
    indirect=["site"],
)
def test_a_client_is_safe_and_forecasts_come_back(
    site: Site, fault: Fault, report: Report, is_long: bool
) -> None:
    before_s, lasts_s, after_s = (4, 10, 6) if is_long else (0.5, 1.5, 0.5)
    site.node.await_ready()
    questions = ask_while_healthy(site.config, **site.client)
    config = replace(site.config, **fault.settings)
    with RankingClient(config, **site.client) as client:
        with Traffic(client, questions) as traffic:
            time.sleep(before_s)
            _await_live_answer(traffic, 0)
            fault.begin(site)
            if fault.end is not None:
                time.sleep(lasts_s)
                fault.end(site)
            # What nobody mends but the supervisor is over when it has happened.
            cleared_at = time.monotonic()
            _await_live_answer(traffic, cleared_at)
            time.sleep(after_s)
        verdict = Verdict.of(fault.name, traffic, cleared_at)
    report.verdicts.append(verdict)
    assert verdict.misses(is_timed=is_long) == []


def _await_live_answer(traffic: Traffic, after: float) -> None:
    """Wait for a forecast that was asked for after a time, but not for ever."""
    end = time.monotonic() + GIVE_UP_S
    while traffic.first_live_answer(after) is None and time.monotonic() < end:
        time.sleep(0.05)
