from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from adprior_bulk.run.ray_cluster import _choose_workers, connect
from adprior_runtime.errors import AdpriorError


@pytest.mark.parametrize(("workers", "cores"), [(None, 3), (2, 2)])
def test_a_local_ray_uses_the_cores_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, cores: int
) -> None:
    options: dict[str, Any] = {}
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **given: options.update(given),
        cluster_resources=lambda: {"CPU": options["num_cpus"]},
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("adprior_bulk.run.ray_cluster.available_processors", lambda: 3)
    with connect(None, workers) as found:
        assert found == cores
    assert options["num_cpus"] == cores


def test_a_worker_on_a_gpu_needs_a_core_too() -> None:
    assert _choose_workers(None, {"CPU": 8.0, "GPU": 2.0}, 0) == 8
    assert _choose_workers(None, {"CPU": 8.0, "GPU": 2.0}, 1) == 2
    assert _choose_workers(None, {"CPU": 2.0, "GPU": 8.0}, 1) == 2
    assert _choose_workers(1, {"CPU": 8.0, "GPU": 2.0}, 1) == 1


@pytest.mark.parametrize(
    ("workers", "resources", "gpus", "message"),
    [
        (None, {}, 0, "Ray has no cores"),
        (9, {"CPU": 8.0}, 0, "--workers 9: Ray has 8 cores, one for each worker"),
        (None, {"CPU": 8.0}, 1, "Ray has no GPUs; use --device cpu, or a cluster with GPUs"),
        (3, {"CPU": 8.0, "GPU": 2.0}, 1, "--workers 3: Ray has 2 GPUs, one for each worker"),
    ],
)
def test_what_a_cluster_lacks_is_one_line(
    workers: int | None, resources: dict[str, float], gpus: int, message: str
) -> None:
    with pytest.raises(AdpriorError) as caught:
        _choose_workers(workers, resources, gpus)
    assert str(caught.value) == message
