from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from adprior_bulk.run.ray_cluster import connect


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
