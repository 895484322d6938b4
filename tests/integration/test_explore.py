"""``adprior explore`` on the real tritonserver: every view, a killed server, large inputs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from adprior_runtime import contract
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from support.client_calls import SECRET
from support.explorer import Explorer, explore
from support.paths import DEMO
from support.processes import await_true
from support.servers import Served, choose_ports, start_server

pytestmark = pytest.mark.triton

USERS: Final = sorted((DEMO / "users").glob("*.json"))
USER: Final[dict[str, Any]] = json.loads((DEMO / "users" / "dog_owner.json").read_text())
SHOWN: Final = 5


@pytest.fixture(scope="module")
def explorer(tiny_served: Served) -> Iterator[Explorer]:
    """The page on one server, which stands for both bundles."""
    url = tiny_served.server.grpc_address
    options = ("--url", url, "--bundle-b", url, "--port", "0", "--timeout", "60")
    with explore(*options, "--users", *USERS) as running:
        yield running


def ask(explorer: Explorer, path: str, document: Any = None) -> Any:
    """Return the answer to a document, or to a plain request without one."""
    body = None if document is None else json.dumps(document).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{explorer.url}/api/{path}", body, headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def test_a_forecast_is_the_clients_with_its_certificate_and_times(
    explorer: Explorer, tiny_served: Served
) -> None:
    found = ask(explorer, "forecast", {"side": "a", "user": USER, "k": SHOWN})
    forecast = tiny_served.retrieval.forecast(USER, SHOWN + 1)
    listed = [(item["advertiser_id"], item["name"]) for item in found["advertisers"]]
    assert listed == [(it.advertiser_id, it.name) for it in forecast.advertisers[:SHOWN]]
    certificate = found["certificate"]
    assert certificate["exact"] is True
    last, other = forecast.advertisers[SHOWN - 1 :]
    assert certificate["best_other"]["name"] == other.name
    assert certificate["gap_nats"] == pytest.approx(last.log_prob - other.log_prob, abs=1e-4)
    masses = [certificate[f"{part}_mass"] for part in ("shown", "missing", "outside")]
    assert sum(masses) == pytest.approx(1, abs=1e-6)
    assert found["context_use"]["events"] == len(USER["history"])
    steps = found["steps"]
    assert [step["step"] for step in steps] == [
        contract.TOKENIZER,
        contract.LLM_ENGINE,
        contract.ADVERTISER_DECODER,
    ]
    assert all(step["ms"] > 0 for step in steps)
    assert steps[1]["ms"] < found["server_ms"] <= found["total_ms"]


def test_the_certificate_is_the_servers_own_for_what_is_shown(
    explorer: Explorer, tiny_served: Served
) -> None:
    """The page asks for one advertiser more, and says what the server says without it."""
    for path in USERS:
        user = json.loads(path.read_text())
        for k in (1, 4, 20, 100):
            found = ask(explorer, "forecast", {"side": "a", "user": user, "k": k})["certificate"]
            forecast = tiny_served.retrieval.forecast(user, k)
            assert found["exact"] is forecast.exact
            shown = sum(item.probability for item in forecast.advertisers)
            assert found["shown_mass"] == pytest.approx(shown, abs=1e-5)


def test_why_finds_the_events_that_carry_the_forecast(
    explorer: Explorer, tiny_served: Served
) -> None:
    found = ask(explorer, "why", {"side": "a", "user": USER, "k": SHOWN})
    kinds = [row["kind"] for row in found["without"]]
    assert kinds.count("event") == len(USER["history"])
    assert (kinds.count("profile"), kinds.count("advertiser")) == (1, 2)
    assert found["runs"] <= 1 + len(kinds)
    row = next(row for row in found["without"] if row["event_index"] == 4)
    rest = [event for place, event in enumerate(USER["history"]) if place != 4]
    without = tiny_served.retrieval.forecast(USER | {"history": rest}, SHOWN)
    expected = {item.advertiser_id: item.probability for item in without.advertisers}
    for change in row["changes"]:
        if not change["is_bound"]:
            assert change["to"] == pytest.approx(expected[change["advertiser_id"]], abs=1e-5)
    assert any(row["shift"] > 0 for row in found["without"])


def test_a_ranking_of_1000_candidates_live_and_stored(
    explorer: Explorer, tiny_served: Served
) -> None:
    ids = [item.advertiser_id for item in tiny_served.retrieval.forecast(USER, 10).advertisers]
    candidates: list[dict[str, Any]] = [
        {"advertiser_id": ids[place % 10] if place % 3 else 10**9 + place, "base_logit": -place / 7}
        for place in range(1000)
    ]
    document = {"side": "a", "user": USER, "candidates": candidates}
    first = ask(explorer, "rank", document)
    expected = tiny_served.ranking.score(
        USER,
        [item["advertiser_id"] for item in candidates],
        [item["base_logit"] for item in candidates],
    )
    adjusted = [row["adjusted_logit"] for row in first["candidates"]]
    assert adjusted == pytest.approx(expected.logits.tolist(), abs=1e-4)
    assert sorted(row["rank_after"] for row in first["candidates"]) == list(range(1, 1001))
    assert first["candidates"][0]["status"] == "not_in_catalogue"
    changed = document | {"user": USER | {"history": []}, "stored_forecast": first["forecast"]}
    second = ask(explorer, "rank", changed)
    kept = tiny_served.ranking.score(
        expected.forecast or pytest.fail("the ranking has no forecast"),
        [item["advertiser_id"] for item in candidates],
        [item["base_logit"] for item in candidates],
    )
    stored = [row["stored"]["adjusted_logit"] for row in second["candidates"]]
    assert stored == pytest.approx(kept.logits.tolist(), abs=1e-4)


def test_a_server_agrees_with_itself(explorer: Explorer) -> None:
    found = ask(explorer, "compare", {"user": USER, "k": 10})
    assert found["total_variation"] == pytest.approx(0, abs=1e-5)
    assert [item["advertiser_id"] for item in found["a"]] == [
        item["advertiser_id"] for item in found["b"]
    ]
    assert found["overlap_at"] == {"5": 1, "10": 1}
    found = ask(explorer, "agreement", {"users": None, "k": 10})
    assert found["users"] == len(USERS)
    assert found["same_first"]["mean"] == 1
    assert found["drift"] == pytest.approx(0, abs=1e-3)


def test_a_user_of_256_kib(explorer: Explorer) -> None:
    event = {"time": "2022-05-01", "action": "purchase", "advertiser": "Purina", "text": SECRET}
    size = len(json.dumps(event, separators=(",", ":"))) + 1
    user = USER | {"history": [event] * ((MAX_CONTEXT_BYTES - 2000) // size)}
    found = ask(explorer, "forecast", {"side": "a", "user": user, "k": SHOWN})
    assert len(found["advertisers"]) == SHOWN
    assert found["context_use"]["used_events"] < found["context_use"]["events"]
    larger = user | {"history": [*user["history"], *[event] * (2000 // size + 5)]}
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(explorer, "forecast", {"side": "a", "user": larger})
    with refused.value as error:
        assert error.code == 400
        answer = json.load(error)
    assert f"at most {MAX_CONTEXT_BYTES}" in answer["error"]
    assert SECRET not in json.dumps(answer) + explorer.output


def test_a_server_that_is_killed_and_comes_back(tiny_repository: Path) -> None:
    ports = choose_ports()
    document = {"side": "a", "user": USER | {"profile": {"note": SECRET}}}
    server = start_server(tiny_repository, **ports)
    with server, explore("--url", server.grpc_address, "--port", "0") as explorer:
        ask(explorer, "forecast", document)
        server.kill()
        await_true(lambda: not ask(explorer, "state")["sides"][0]["ready"])
        (side,) = ask(explorer, "state")["sides"]
        assert "adprior serve" in side["what_to_do"]
        with pytest.raises(urllib.error.HTTPError) as failed:
            ask(explorer, "forecast", document)
        with failed.value as error:
            assert error.code == 502
            assert server.grpc_address in json.load(error)["error"]
        with start_server(tiny_repository, **ports):
            await_true(lambda: explorer.is_ready(token=None))
            ask(explorer, "forecast", document)
    assert explorer.output.count("\n") == 2, explorer.output  # its address, and that it ended
    assert SECRET not in explorer.output
