"""Kills (-9) workers or the driver of ``adprior bulk`` at random moments.

With the shipped bundle and any event log::

    PYTHONPATH=tests python -m integration.bulk_kills --kills 20 --scratch DIRECTORY \
        --events E --profiles P --columns MAP --bundle demo/bundle
"""

from __future__ import annotations

import argparse
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds

from adprior_bulk.output.manifest import Manifest
from support.processes import COMMAND

BULK = (*COMMAND, "bulk")


def read_output(output: Path) -> pa.Table:
    """Return what a reader sees, by user; fail if a file that the manifest lists is incomplete."""
    manifest = Manifest.load(output)
    assert manifest is not None
    files = [str(output / file.path) for file in manifest.files]
    table = ds.dataset(files, format="parquet").to_table().sort_by("user_id")
    assert table.num_rows == sum(file.rows for file in manifest.files)
    return table


def assert_same_forecasts(first: pa.Table, second: pa.Table) -> None:
    """Assert that two outputs hold the same forecasts, and each user once; see `same_forecast`."""
    users = first["user_id"].to_pylist()
    assert len(set(users)) == len(users)
    assert users == second["user_id"].to_pylist()
    for name in ("as_of", "exact", "bundle_id", "last_activity", "expires_at", "events_digest"):
        assert first[name].to_pylist() == second[name].to_pylist()
    for one, other in zip(_forecasts(first), _forecasts(second), strict=True):
        assert same_forecast(one, other)


def same_forecast(one: dict[int, float], other: dict[int, float]) -> bool:
    """Return whether forecasts agree: log-probabilities to 1e-3, ids except for ties of 1e-4."""
    if len(one) != len(other):
        return False
    if not np.allclose([*one.values()], [*other.values()], atol=1e-3):
        return False
    # An advertiser in only one of them is tied with the last of the other.
    last = min([*one.values(), *other.values()], default=0.0)
    alone = {**one, **other}
    return all(abs(alone[key] - last) < 1e-4 for key in one.keys() ^ other.keys()) and all(
        abs(one[key] - other[key]) < 1e-3 for key in one.keys() & other.keys()
    )


def run_killed(
    arguments: Sequence[str], scratch: Path, kills: int, duration_s: float, seed: int = 5
) -> tuple[Path, dict[str, int]]:
    """Run and kill into fresh outputs until ``kills`` processes died; finish the last run.

    Args:
        arguments: Options of ``adprior bulk``, without the output.
        scratch: Directory of the outputs.
        kills: Number of kills.
        duration_s: Duration of an undisturbed run; kills come up to 0.6 of it apart.
        seed: Seed of the random moments.

    Returns:
        The last output, and the number of kills by kind of process.
    """
    moments = random.Random(seed)
    hit = {"driver": 0, "worker": 0}
    number = 0
    while True:
        output = scratch / f"killed-{number}"
        with subprocess.Popen(
            [*BULK, *arguments, "--output", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while sum(hit.values()) < kills and process.poll() is None:
                time.sleep(moments.uniform(0.05, 0.6) * duration_s)
                victim = "worker" if moments.random() < 0.5 else "driver"
                if process.poll() is None and _kill(process.pid, victim, moments):
                    hit[victim] += 1
                if victim == "driver":
                    break
            process.wait()
        if process.returncode == 0:
            assert Manifest.load(output) is not None
            if sum(hit.values()) >= kills:
                return output, hit
            number += 1
        else:
            assert process.returncode == -9
            if (output / "_manifest.json").exists():
                read_output(output)


def _forecasts(table: pa.Table) -> list[dict[int, float]]:
    columns = (table["advertiser_ids"].to_pylist(), table["log_probs"].to_pylist())
    return [dict(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def _kill(driver: int, victim: str, moments: random.Random) -> bool:
    """Kill the driver or one of its workers; return whether one was killed."""
    try:
        process = psutil.Process(driver)
        below = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    if victim == "driver":
        process.kill()
        return True
    workers = [p for p in below if _name(p).startswith("ray::") and "Agent" not in _name(p)]
    if not workers:
        return False
    try:
        moments.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main() -> None:
    """Compare a killed and repeated run with an undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scratch", type=Path, required=True)
    args, rest = parser.parse_known_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    undisturbed = args.scratch / "undisturbed"
    began = time.monotonic()
    subprocess.run([*BULK, *rest, "--output", str(undisturbed)], check=True)
    duration_s = time.monotonic() - began
    output, hit = run_killed(rest, args.scratch, args.kills, duration_s)
    expected, found = read_output(undisturbed), read_output(output)
    assert_same_forecasts(expected, found)
    print(f"{found.num_rows} users after {hit}: the same as undisturbed")


if __name__ == "__main__":
    main()
