"""A process uses a client and forks, and the child calls, all in a process of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.fake_triton import FakeTriton

PARENT = """
import asyncio, json, os, sys, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
from adprior_client import *

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads at a fork
USER = {"as_of": "2024-05-01"}
config = ClientConfig(urls=(sys.argv[1],), health_interval_s=0.02, deadline_s=10.0)

class Nothing:
    asked = 0
    def find(self, user_id):
        Nothing.asked += 1

def ask(client, **options):
    if isinstance(client, RankingClient):
        return client.score(USER, [7, 8], [0.1, 0.2], **options)
    return client.forecast(USER, **options)

async def ask_async(client):
    return await client.forecast(USER)

def threads():
    return sorted({thread.name.split("_")[0] for thread in threading.enumerate()})

def in_child(act):
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            result = act()
        except BaseException as error:
            result = repr(error)
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    result = b"".join(iter(lambda: os.read(reading, 4096), b""))
    os.waitpid(child, 0)
    return json.loads(result)
"""

BLOCKING = """
client = RankingClient(config, stored=Nothing())
ask(client)
client._lock.acquire()  # as another thread may, which the child does not have
result = [in_child(lambda: [str(ask(client).source), threads()]) for _ in range(5)]
client._lock.release()
print(json.dumps([result, [str(ask(client).source), threads()]]))
client.close()
"""

DISCOVERY = """
path = sys.argv[2]
def write(*urls):
    with open(path + ".new", "w") as file:
        file.write("\\n".join(urls))
    os.replace(path + ".new", path)
write(sys.argv[1])
following = ClientConfig(
    urls=(f"file://{path}", "dns:///localhost:1"), health_interval_s=0.02, deadline_s=10.0,
    discovery_interval_s=0.01, max_attempts=5,
)
client = RankingClient(following)
ask(client)
known = [server.url for server in client._fleet.servers]
client._discovery._lock.acquire()  # as another thread may, which the child does not have
def follow():
    before = [server.url for server in client._fleet.servers]
    source = str(ask(client).source)
    write("127.0.0.1:2", sys.argv[1])
    give_up = time.monotonic() + 20
    while len(client._fleet.servers) < 3:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    write(sys.argv[1])
    return [before, source, threads()]
result = [in_child(follow) for _ in range(3)]
client._discovery._lock.release()
client.close()
closed = in_child(lambda: [str(ask(client).reason), threads()])
print(json.dumps([known, result, closed]))
"""

STORED = """
down = ClientConfig(urls=("127.0.0.1:1",), health_interval_s=0, deadline_s=5.0, max_attempts=1)
client = RetrievalClient(down, stored=Nothing())
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: ask(client, user_id="u"), range(16)))
def look_up():
    Nothing.asked = 0
    began = time.monotonic()
    reason = str(ask(client, user_id="u").reason)
    return [reason, Nothing.asked, time.monotonic() - began < 4]
print(json.dumps(in_child(look_up)))
"""

ASYNCIO = """
async def ask_once():
    async with AsyncRetrievalClient(config) as client:
        return str((await ask_async(client)).source)
def ask_both():
    return [asyncio.run(ask_once()), str(asyncio.run(ask_async(unused)).source)]
unused = AsyncRetrievalClient(config)
asyncio.run(ask_once())
closed = in_child(ask_both)
client = AsyncRetrievalClient(config)
asyncio.run(ask_async(client))
still_open = [
    in_child(lambda: asyncio.run(ask_async(client))),
    in_child(lambda: asyncio.run(ask_async(AsyncRetrievalClient(config)))),
    in_child(lambda: str(ask(RetrievalClient(config)).source)),
]
print(json.dumps([closed, still_open]))
sys.stdout.flush()
os._exit(0)
"""


def _run(script: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", PARENT + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_child_has_channels_and_health_checks_of_its_own(triton: FakeTriton) -> None:
    children, parent = _run(BLOCKING, triton.url)
    for source, threads in [*children, parent]:
        assert source == "live"
        assert "adprior-health" in threads


def test_a_child_knows_the_parents_servers_and_follows_them(
    triton: FakeTriton, tmp_path: Path
) -> None:
    known, children, closed = _run(DISCOVERY, triton.url, str(tmp_path / "servers"))
    assert triton.url in known
    for before, source, threads in children:
        assert (triton.url in before, source) == (True, "live")
        assert "adprior-discovery" in threads
    assert closed == ["cancelled", ["MainThread"]]


def test_a_childs_stored_forecasts_are_looked_up() -> None:
    assert _run(STORED, "127.0.0.1:1") == ["unavailable", 1, True]


def test_asyncio_works_in_a_child_or_says_why_it_cannot(triton: FakeTriton) -> None:
    closed, (same, new, blocking) = _run(ASYNCIO, triton.url)
    assert closed == ["live", "live"]
    for result in (same, new):
        assert result.startswith("InvalidArgumentError('this process was forked while an asyncio")
    assert blocking == "live"


def test_a_parquet_source_works_in_a_child(tmp_path: Path) -> None:
    script = """
import pyarrow as pa, pyarrow.parquet as pq
from datetime import UTC, datetime
from pathlib import Path
place = Path(sys.argv[2])
def commit(day, advertiser_id):
    row = {
        "user_id": "u", "as_of": datetime(2024, 5, day, tzinfo=UTC),
        "advertiser_ids": [advertiser_id], "log_probs": [-0.5], "exact": True,
        "missing_mass": 0.25, "bundle_id": "b",
    }
    pq.write_table(pa.Table.from_pylist([row]), place / f"{day}.parquet")
    (place / "new").write_text(json.dumps({"files": [f"{day}.parquet"]}))
    (place / "new").replace(place / "_manifest.json")
commit(1, 7)
source = ParquetForecasts(place, refresh_s=0.01)
def follow():
    commit(2, 9)
    give_up = time.monotonic() + 20
    while (found := source.find("u").advertisers[0].advertiser_id) != 9:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found
source._lock.acquire()
print(json.dumps(in_child(follow)))
"""
    assert _run(script, "127.0.0.1:1", str(tmp_path)) == 9
