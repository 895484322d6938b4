"""A request that the browser aborts cancels its calls to Triton."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from support.client_calls import SECRET
from support.explorer import explore
from support.fake_triton import FakeTriton
from support.processes import await_true

USER = {
    "profile": {"note": SECRET},
    "history": [{"time": "2024-05-01", "action": "purchase", "advertiser": SECRET}] * 2,
    "as_of": "2024-05-31",
}
CANDIDATES = [{"advertiser_id": 7, "base_logit": -1.0}]


@pytest.mark.parametrize("path", ["why", "rank", "compare", "agreement"])
def test_the_calls_of_an_aborted_request_are_cancelled(triton: FakeTriton, path: str) -> None:
    options = ("--url", triton.url, "--bundle-b", triton.url, "--port", "0")
    with explore(*options) as explorer:
        triton.hold = True
        triton.calls.clear()
        connection = http.client.HTTPConnection(urlsplit(explorer.url).netloc, timeout=30)
        document = {"side": "a", "user": USER, "users": [USER], "candidates": CANDIDATES}
        headers = {"content-type": "application/json"}
        connection.request("POST", f"/api/{path}", json.dumps(document), headers)
        await_true(lambda: triton.calls)
        assert not triton.cancelled.is_set()
        connection.close()
        assert triton.cancelled.wait(timeout=60)
        triton.release.set()
        assert explorer.is_ready(token=None)
    assert explorer.process.returncode == 130  # Ctrl-C
    assert SECRET not in explorer.output
    assert [line[:21] for line in explorer.output.splitlines()] == [
        "adprior explore: open",
        "adprior explore: inte",
    ]
