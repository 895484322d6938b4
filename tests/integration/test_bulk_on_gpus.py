"""`adprior bulk --device cuda` on a real Ray, with GPUs that Ray only counts, and without any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

from adprior_bulk.run.ray_cluster import connect, map_items
from adprior_runtime.cli import main

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # its own defaults
]


@pytest.fixture
def counted_gpus() -> Iterator[None]:
    """A Ray that believes in two GPUs."""
    ray.init(num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _show_gpus() -> Callable[[str], str]:
    return lambda _: os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.usefixtures("counted_gpus")
def test_each_worker_sees_one_gpu() -> None:
    with connect(None, None) as workers:
        assert workers == 3
    with connect(None, None, gpus=1) as workers:
        assert workers == 2
        items = [str(number) for number in range(6)]
        seen = [*map_items(items, _show_gpus, (), workers=workers, gpus=1)]
    assert len(seen) == 6
    assert set(seen) <= {"0", "1"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_cluster_without_gpus_is_one_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.parquet"
    context = json.dumps({"as_of": "2024-03-20"})
    pq.write_table(pa.table({"user_id": ["u"], "context": [context]}), users)
    command = ["bulk", "--users", str(users), "--bundle", str(tiny_bundle), "--device", "cuda"]
    output = ["--output", str(tmp_path / "out")]
    assert main([*command, *output, "--dry-run"]) == 0  # counts users, without a model
    capsys.readouterr()
    assert main([*command, *output]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "adprior bulk: Ray has no GPUs; use --device cpu, or a cluster with GPUs"
