"""Made-up forecasts of made-up users, in Parquet as ``adprior bulk`` writes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_client.stored.parquet_files import MANIFEST
from adprior_runtime.text.json_text import to_json

_SHARDS: Final = 8
_CATALOGUE: Final = 10_000


def write_users(path: Path, *, users: int, advertisers: int) -> None:
    """Write a directory with a manifest; user ids have 32 hexadecimal digits."""
    random = np.random.default_rng(1)
    names = []
    for shard in range(_SHARDS):
        name = f"date=1/shard={shard:04}/part.parquet"
        (path / name).parent.mkdir(parents=True)
        pq.write_table(_table(range(shard, users, _SHARDS), advertisers, random), path / name)
        names.append({"path": name})
    (path / MANIFEST).write_text(to_json({"files": names}), encoding="utf-8")


def _table(users: range, advertisers: int, random: np.random.Generator) -> Any:
    count = len(users)
    step = max(_CATALOGUE // advertisers, 1)  # one of each range of ids, so that no id repeats
    ids = random.integers(step, size=(count, advertisers)) + step * np.arange(advertisers)
    log_probs = -np.sort(random.exponential(2.0, size=(count, advertisers)), axis=1)
    starts = np.arange(0, (count + 1) * advertisers, advertisers, dtype=np.int32)
    now_us = int(time.time() * 1e6)
    return pa.table(
        {
            "user_id": [f"{user:032x}" for user in users],
            "as_of": pa.array(np.full(count, now_us), pa.timestamp("us", "UTC")),
            "advertiser_ids": pa.ListArray.from_arrays(starts, ids.ravel().astype(np.int64)),
            "log_probs": pa.ListArray.from_arrays(starts, log_probs.ravel().astype(np.float32)),
            "exact": random.random(count) < 0.9,
            "missing_mass": pa.array(random.random(count), pa.float32()),
            "bundle_id": ["0123456789ab"] * count,
        }
    )
