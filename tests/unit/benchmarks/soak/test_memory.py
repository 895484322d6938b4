from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from adprior_bench.soak.memory import MemoryRecord, Sampler

MIB = 2**20


def _record(megabytes: list[float], *, other: float = 50.0) -> MemoryRecord:
    """A sample a second of two processes, the second of which stays as it is."""
    return MemoryRecord(
        times_s=[float(second) for second in range(len(megabytes))],
        resident={
            "leaking": [int(value * MIB) for value in megabytes],
            "steady": [int(other * MIB)] * len(megabytes),
        },
    )


def test_what_grows_before_the_warm_up_is_over_does_not_count() -> None:
    record = _record([float(min(second, 180)) for second in range(900)])
    leaking, steady, everything = record.growth(warm_up_s=180)
    assert (leaking.first_mib, leaking.share) == (180.0, 0.0)
    assert steady.share == 0.0
    assert (everything.process, everything.first_mib, everything.peak_mib) == ("all", 230, 230)


def test_a_leak_shows_in_its_process_and_in_all() -> None:
    record = _record([100 + second / 60 for second in range(900)])  # a MiB a minute
    leaking, _, everything = record.growth(warm_up_s=180)
    # From the middle of the fourth minute to the middle of the last.
    assert leaking.share == pytest.approx(11 / 103.5, abs=1e-3)
    assert everything.share == pytest.approx(11 / 153.5, abs=1e-3)


def test_a_single_spike_is_a_peak_and_no_growth() -> None:
    values = [100.0] * 900
    values[870] = 400.0
    leaking, *_ = _record(values).growth(warm_up_s=180)
    assert (leaking.share, leaking.peak_mib) == (0.0, 400.0)


def test_a_short_soak_has_short_windows() -> None:
    leaking, *_ = _record([100 + second for second in range(31)]).growth(warm_up_s=0)
    assert leaking.first_mib == pytest.approx(104.5)
    assert leaking.last_mib == pytest.approx(125)


def test_a_sampler_reads_resident_memory_and_tells_of_an_end() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        sampler = Sampler(process.pid)
        assert sampler.sample()
        ((value,),) = sampler.record.resident.values()
        assert value >= os.sysconf("SC_PAGE_SIZE")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not sampler.sample()  # a zombie
    assert not sampler.sample()
    assert len(sampler.record.times_s) == 1


def test_the_instances_of_a_model_count_as_one(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sh", stub)
    model = tmp_path / "repository" / "llm_engine" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("read forever\n")
    with ExitStack() as stack:
        processes = []
        for _ in range(2):
            process = subprocess.Popen([stub, model], stdin=subprocess.PIPE)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        sampler = Sampler(os.getpid())
        assert sampler.sample()
        (resident,) = sampler.record.resident["llm_engine"]
        assert resident > max(psutil.Process(each.pid).memory_info().rss for each in processes)
        processes[0].kill()
        processes[0].wait()
        assert not sampler.sample()
