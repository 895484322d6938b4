"""A repository of `adprior build` goes through a store to a real tritonserver, and back again."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adprior_runtime.bundle import MANIFEST, REPOSITORY_MARKER, Manifest
from adprior_runtime.repository.checker import check_repository
from support.processes import COMMAND, run_adprior
from support.servers import build_repository, choose_ports, connect, port_options

pytestmark = pytest.mark.triton
USER = {"as_of": "2024-05-31T12:00:00", "history": []}


@pytest.fixture
def versions(tiny_bundle: Path, tiny_repository: Path, tmp_path: Path) -> dict[str, Path]:
    """Repositories by their bundles' ids, the older one first."""
    wide = build_repository(tiny_bundle, tmp_path / "wide", "--beam-width", "24")
    return {
        Manifest.load(each / REPOSITORY_MARKER).bundle_id: each for each in (tiny_repository, wide)
    }


@contextmanager
def _serving(url: str, cache: Path) -> Iterator[str]:
    """Yield the bundle's id that a server of the URL answers with."""
    ports = choose_ports()
    options = ["--repository", url, "--cache", str(cache), *port_options(ports)]
    with subprocess.Popen(
        [*COMMAND, "serve", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("adprior: ready"), process.communicate()[1]
            with connect(f"127.0.0.1:{ports['grpc_port']}") as (retrieval, _):
                yield retrieval.forecast(USER).bundle_id
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()


def test_a_bad_bundle_is_replaced_by_the_good_one(
    versions: dict[str, Path], tmp_path: Path
) -> None:
    url, cache = f"file://{tmp_path / 'store'}", tmp_path / "cache"
    good, bad = versions
    for repository in versions.values():
        assert run_adprior("push", repository, url).returncode == 0
    with _serving(url, cache) as bundle_id:
        assert bundle_id == bad
    assert run_adprior("push", "--activate", "previous", url).returncode == 0
    with _serving(url, cache) as bundle_id:
        assert bundle_id == good


def test_what_was_pulled_passes_the_full_check(tiny_repository: Path, tmp_path: Path) -> None:
    url, target = tmp_path / "store", tmp_path / "target"
    assert run_adprior("push", tiny_repository, url).returncode == 0
    pulled = json.loads(run_adprior("pull", url, target, "--json").stdout)
    assert check_repository(target) == []
    assert pulled["bundle_id"] == Manifest.load(target / REPOSITORY_MARKER).bundle_id


def test_a_pulled_bundle_builds_a_repository(tiny_bundle: Path, tmp_path: Path) -> None:
    url, target = tmp_path / "store", tmp_path / "bundle"
    assert run_adprior("push", tiny_bundle, url).returncode == 0
    assert run_adprior("pull", url, target).returncode == 0
    build_repository(target, tmp_path / "repository")
    assert (target / MANIFEST).read_bytes() == (tiny_bundle / MANIFEST).read_bytes()
