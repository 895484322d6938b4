"""Every path of the page's server, with Tritons that answer as the test says."""

from __future__ import annotations

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
from starlette.testclient import TestClient

from adprior_client import Advertiser, Forecast
from adprior_client.user_context import user_to_json
from adprior_explore import why
from adprior_explore.reports import find_reports
from adprior_runtime import contract
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from support.client_calls import SECRET
from support.fake_triton import FakeTriton, forecast_tensors, interest_tensors
from support.processes import await_true
from unit.explore.conftest import OpenPage, sides_of

USER: Final[dict[str, Any]] = {
    "profile": {"note": SECRET},
    "history": [
        {"time": "2024-05-01", "action": "purchase", "advertiser": "Z\u0307abka"},
        {"time": "2024-05-02", "action": "purchase", "advertiser": "Other"},
        {"time": "2024-05-03", "action": "purchase", "advertiser": "Other"},
    ],
    "as_of": "2024-05-31",
}
ASKED: Final[dict[str, Any]] = {"side": "a", "user": USER}
CANDIDATES: Final = [{"advertiser_id": place, "base_logit": -1.0 * place} for place in (7, 8, 9)]
KEPT: Final = Forecast(
    advertisers=(Advertiser(advertiser_id=7, name="Acme", log_prob=-0.5),),
    exact=True,
    missing_mass=0.25,
    bundle_id="bundle-1",
)


def _post(page: TestClient, path: str, **document: Any) -> dict[str, Any]:
    response = page.post(f"/api/{path}", json=document)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_state_says_what_there_is(page: TestClient, triton: FakeTriton) -> None:
    state = page.get("/api/state").json()
    assert state["sides"] == [
        {
            "side": "a",
            "url": triton.url,
            "ready": True,
            "bundle_id": "bundle-1",
            "default_k": 3,
            "interests": False,
            "error": None,
            "what_to_do": None,
        }
    ]
    assert state["examples"] == [
        {"name": "dog_owner", "title": "dog owner"},
        {"name": "no_history", "title": "no history"},
    ]
    assert (state["stored"], state["reports"]) == (False, [])
    assert state["limits"]["context_bytes"] == MAX_CONTEXT_BYTES


def test_an_example_is_a_context(page: TestClient) -> None:
    example = page.get("/api/examples/dog_owner").json()
    assert example["history"][0]["advertiser"] == "Purina"
    assert page.get("/api/examples/nobody").status_code == 404


def test_a_forecast_shows_k_and_knows_the_next_one(page: TestClient, triton: FakeTriton) -> None:
    found = _post(page, "forecast", **ASKED, k=2)
    assert [item["name"] for item in found["advertisers"]] == ["Acme", "Żabka"]
    assert [item["is_new"] for item in found["advertisers"]] == [True, False]
    certificate = found["certificate"]
    assert certificate["asked_one_more"] is True
    assert certificate["best_other"]["name"] == "三星"
    assert certificate["gap_nats"] == pytest.approx(1.5)
    assert found["bundle_id"] == "bundle-1"
    assert found["context_use"] == {"events": 0, "used_events": 0, "text": "no history"}
    (retrieval, asked), (tokenizer, read) = triton.calls
    assert (tokenizer, retrieval) == (contract.TOKENIZER, contract.ADVERTISER_RETRIEVAL)
    assert asked[contract.TOP_K].tolist() == [[3]]
    for inputs in (read, asked):
        assert json.loads(inputs[contract.USER_CONTEXT][0, 0]) == USER


def test_a_forecast_has_the_servers_own_times(page: TestClient) -> None:
    found = _post(page, "forecast", **ASKED)
    assert [step["step"] for step in found["steps"]] == [
        contract.TOKENIZER,
        contract.LLM_ENGINE,
        contract.ADVERTISER_DECODER,
    ]
    assert found["steps"][1] == {"step": contract.LLM_ENGINE, "ms": 2.0, "queue_ms": 1.0}
    assert found["server_ms"] == 8.0
    assert found["total_ms"] > 0


def test_a_forecast_of_the_most_that_a_bundle_allows_is_asked_without_one_more(
    page: TestClient, triton: FakeTriton
) -> None:
    triton.status, triton.failures = grpc.StatusCode.INVALID_ARGUMENT, 1
    found = _post(page, "forecast", **ASKED, k=3)
    assert len(found["advertisers"]) == 3
    certificate = found["certificate"]
    assert (certificate["asked_one_more"], certificate["best_other"]) == (False, None)
    assert certificate["best_other_bound"] == pytest.approx(math.exp(-3))
    assert found["server_ms"] == 8.0  # of the call that was answered
    assert _asked(triton) == [4, 3]


def _asked(triton: FakeTriton) -> list[int]:
    retrievals = [inputs for name, inputs in triton.calls if name == contract.ADVERTISER_RETRIEVAL]
    return [inputs[contract.TOP_K].item() for inputs in retrievals]


def _tie_after(count: int, triton: FakeTriton) -> None:
    """Let Triton certify the first ``count`` advertisers and no more of them."""
    usual = triton.answer

    def answer(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        found = usual(model, inputs)
        if model == contract.ADVERTISER_RETRIEVAL:
            asked = inputs[contract.TOP_K].item()
            listed = (contract.ADVERTISER_IDS, contract.LOG_PROBS, contract.ADVERTISER_NAMES)
            found |= {name: found[name][:, :asked] for name in listed}
            found[contract.EXACT] = np.array([[asked <= count]])
        return found

    triton.answer = answer


@pytest.mark.parametrize(("certified", "is_proved"), [(2, True), (1, False)])
def test_if_one_more_is_not_certified_what_is_shown_is_asked_for_alone(
    page: TestClient, triton: FakeTriton, certified: int, is_proved: bool
) -> None:
    _tie_after(certified, triton)
    found = _post(page, "forecast", **ASKED, k=2)
    assert _asked(triton) == [3, 2]
    assert [item["name"] for item in found["advertisers"]] == ["Acme", "Żabka"]
    certificate = found["certificate"]
    assert certificate["exact"] is is_proved
    assert certificate["asked_one_more"] is True
    assert certificate["gap_nats"] is None
    assert certificate["missing_mass"] == certificate["best_other_bound"] == 0.125
    assert found["server_ms"] == 16.0  # of both calls


def test_interests_are_asked_for_where_a_bundle_has_them(
    triton: FakeTriton, open_page: OpenPage
) -> None:
    usual = triton.answer

    def answer(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        asked = inputs.get(contract.INTEREST_TOP_K)
        return usual(model, inputs) | ({} if asked is None else interest_tensors(asked.item()))

    triton.answer = answer
    with open_page(triton) as page:
        assert sides_of(page)[0]["interests"] is True
        found = _post(page, "forecast", **ASKED, interest_k=2)
    assert [item["name"] for item in found["interests"]] == ["Tee", "茶"]


def test_why_leaves_each_part_out_in_one_batch(page: TestClient, triton: FakeTriton) -> None:
    found = _post(page, "why", **ASKED)
    assert [(row["kind"], row["label"]) for row in found["without"]] == [
        ("profile", "profile"),
        ("event", "2024-05-01 purchase Z\u0307abka"),
        ("event", "2024-05-02 purchase Other"),
        ("event", "2024-05-03 purchase Other"),
        ("advertiser", "Other (2 events)"),
    ]
    assert found["runs"] == 6
    assert found["skipped"] is None
    sent = [json.loads(inputs[contract.USER_CONTEXT][0, 0]) for _, inputs in triton.calls]
    assert len(sent) == 6
    assert {len(context["history"]) for context in sent} == {1, 2, 3}
    assert set(triton.priorities[-6:]) == {int(contract.Priority.BULK)}


def test_why_measures_what_changes(page: TestClient, triton: FakeTriton) -> None:
    usual = triton.answer

    def answer(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        context = json.loads(inputs[contract.USER_CONTEXT][0, 0])
        if context["profile"]:
            return usual(model, inputs)
        moved = np.array([[math.log(0.7), -1.6, -3.0]], dtype=np.float32)
        return forecast_tensors(**{contract.LOG_PROBS: moved})

    triton.answer = answer
    found = _post(page, "why", **ASKED)
    by_kind = {row["kind"]: row for row in found["without"]}
    assert by_kind["profile"]["shift"] == pytest.approx(0.7 - math.exp(-0.5), abs=1e-6)
    assert by_kind["profile"]["changes"][0]["name"] == "Acme"
    assert by_kind["event"]["shift"] == 0
    assert by_kind["event"]["changes"] == []


def test_why_on_a_long_history_is_bounded_and_lets_other_requests_be_answered(
    page: TestClient, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[int] = []
    other = ThreadPoolExecutor(1)

    def check(user: Any) -> bytes:
        states.append(other.submit(page.get, "/api/state").result(timeout=30).status_code)
        return user_to_json(user)

    monkeypatch.setattr(why, "user_to_json", check)
    event = {"time": "2024-05-01", "action": "view"}
    events = [event | {"advertiser": f"shop {place // 2}"} for place in range(1000)]
    with other:
        found = _post(page, "why", side="a", user=USER | {"history": events})
    assert len(found["without"]) == len(states) == 81
    assert found["runs"] == len(triton.calls) == 62  # two equal events: the same context
    assert found["skipped"].startswith("Only the latest 40 of 1000 events and the latest 40 of 500")
    assert set(states) == {200}


def test_a_ranking_before_and_after(page: TestClient) -> None:
    _post(page, "forecast", **ASKED)
    found = _post(page, "rank", **ASKED, candidates=CANDIDATES)
    assert [row["status"] for row in found["candidates"]] == [
        "exact",
        "upper_bound",
        "not_in_catalogue",
    ]
    assert [row["contribution"] for row in found["candidates"]] == pytest.approx([0.25, 0.25, 0])
    assert [row["rank_before"] for row in found["candidates"]] == [1, 2, 3]
    assert found["candidates"][0]["name"] == "Acme"  # from the forecast before
    assert found["candidates"][1]["name"] is None
    assert found["candidates"][2]["log_prob"] is None
    assert found["has_fitted_head"] is True
    assert found["stored_forecast"] is None
    assert found["candidates"][0]["stored"] is None


def test_the_forecast_of_a_ranking_can_be_stored_and_ranked_with(
    page: TestClient, triton: FakeTriton
) -> None:
    kept = _post(page, "rank", **ASKED, candidates=CANDIDATES)["forecast"]
    triton.calls.clear()
    found = _post(page, "rank", **ASKED, candidates=CANDIDATES, stored_forecast=kept)
    assert [model for model, _ in triton.calls] == [
        contract.ADVERTISER_RANKING,
        contract.PRIOR_HEAD,
    ]
    assert found["stored_forecast"] == {"source": "page", "age_s": None, "bundle_id": "bundle-1"}
    assert found["candidates"][0]["stored"]["contribution"] == pytest.approx(0.25)


def test_a_stored_forecast_of_another_bundle_is_refused(page: TestClient) -> None:
    kept = KEPT.to_json() | {"bundle_id": "bundle-0"}
    document = {**ASKED, "candidates": CANDIDATES, "stored_forecast": kept}
    response = page.post("/api/rank", json=document)
    assert response.status_code == 409
    assert "bundle-0" in response.json()["error"]


def test_ids_above_2_53_are_taken_as_strings_of_digits(
    page: TestClient, triton: FakeTriton
) -> None:
    ids = [2**53 + 1, 2**53 + 3, -(2**63)]
    triton.change(**{contract.ADVERTISER_IDS: np.array([ids], dtype=np.int64)})
    candidates = [{"advertiser_id": str(each), "base_logit": -1.0} for each in ids]
    response = page.post("/api/rank", json={**ASKED, "candidates": candidates})
    found = response.json()
    assert [row["advertiser_id"] for row in found["candidates"]] == ids
    kept = found["forecast"]
    assert [item["advertiser_id"] for item in kept["advertisers"]] == ids
    kept["advertisers"] = [
        item | {"advertiser_id": str(item["advertiser_id"])} for item in kept["advertisers"]
    ]
    _post(page, "rank", **ASKED, candidates=candidates, stored_forecast=kept)
    model, inputs = triton.calls[-1]
    assert model == contract.PRIOR_HEAD
    for name in (contract.CANDIDATE_ADVERTISER_IDS, contract.ADVERTISER_IDS):
        assert inputs[name].ravel().tolist() == ids


class _Store:
    def find(self, user_id: str | int) -> Forecast | None:
        return KEPT if user_id == "user-17" else None


def test_a_stored_forecast_is_looked_up_by_user_id(triton: FakeTriton, open_page: OpenPage) -> None:
    with open_page(triton, store=_Store()) as page:
        assert page.get("/api/state").json()["stored"] is True
        found = _post(page, "rank", **ASKED, candidates=CANDIDATES, user_id="user-17")
        assert found["stored_forecast"]["source"] == "store"
        found = _post(page, "rank", **ASKED, candidates=CANDIDATES, user_id="nobody")
        assert found["stored_forecast"] is None


def _other_bundle(triton: FakeTriton) -> None:
    triton.change(
        **{
            contract.ADVERTISER_IDS: np.array([[2**40, 7, 4]], dtype=np.int64),
            contract.ADVERTISER_NAMES: np.array([["Żabka".encode(), b"Acme", b"Four"]], object),
            contract.BUNDLE_ID: np.array([[b"bundle-2"]], dtype=np.object_),
        }
    )


def test_two_bundles_side_by_side(tritons: list[FakeTriton], open_page: OpenPage) -> None:
    _other_bundle(tritons[1])
    with open_page(*tritons) as page:
        assert [side["side"] for side in sides_of(page)] == ["a", "b"]
        found = _post(page, "compare", user=USER, k=3)
    names = {side: [item["name"] for item in found[side]] for side in "ab"}
    assert names == {"a": ["Acme", "Żabka", "三星"], "b": ["Żabka", "Acme", "Four"]}
    assert found["total_variation"] == pytest.approx(math.exp(-0.5) - math.exp(-1.5), abs=1e-6)
    assert found["overlap_at"] == {}  # 3 is fewer than 5


def test_more_users_than_a_browser_waits_for_are_refused(
    tritons: list[FakeTriton], open_page: OpenPage
) -> None:
    with open_page(*tritons) as page:
        for users in ([], [USER] * 101):
            response = page.post("/api/agreement", json={"users": users})
            assert response.status_code == 400
            assert "1 to 100 users" in response.json()["error"]


def test_agreement_over_users(tritons: list[FakeTriton], open_page: OpenPage) -> None:
    _other_bundle(tritons[1])
    with open_page(*tritons) as page:
        found = _post(page, "agreement", users=None, k=20)
        assert [row["label"] for row in found["per_user"]] == ["dog owner", "no history"]
        assert found["overlap_at"]["5"]["mean"] == pytest.approx(2 / 3)
        assert found["same_first"] == {"mean": 0, "low": 0, "high": 0}
        assert found["drift"] > 0
        found = _post(page, "agreement", users=[USER])
        assert found["per_user"][0]["label"] == "user 1"
        assert found["same_first"] == {"mean": 0, "low": None, "high": None}


def test_one_server_has_nothing_to_compare(page: TestClient) -> None:
    for path in ("compare", "agreement"):
        response = page.post(f"/api/{path}", json={"user": USER, "users": None})
        assert response.status_code == 400
        assert "--bundle-b" in response.json()["what_to_do"]


@pytest.mark.parametrize(
    ("path", "changed", "error"),
    [
        ("forecast", {"user": None}, "request: user: found null, expected an object"),
        ("forecast", {"side": "c"}, "side: found a string, expected one of a"),
        ("forecast", {"k": 0}, "k: found 0, expected 1 to 1000"),
        ("forecast", {"k": 1.5}, "k: found 1.5, expected an integer"),
        ("forecast", {"user": {"history": []}}, "user: as_of: missing"),
        ("forecast", {"user": USER | {"history": [{"time": SECRET}]}}, "user: history[0].time"),
        ("forecast", {"user": USER | {"profile": {"a": [SECRET]}}}, "user: profile, entry 0"),
        ("rank", {"candidates": []}, "candidates: found none"),
        ("rank", {"candidates": [{"advertiser_id": 7}]}, "candidates[0]: base_logit is missing"),
        ("rank", {"candidates": [{"advertiser_id": "9" * 19}]}, "an integer of at most 64 bits"),
        (
            "rank",
            {"candidates": [{"advertiser_id": "9" * 20}]},
            "found a string, expected an integ",
        ),
        (
            "rank",
            {"candidates": [{"advertiser_id": SECRET}]},
            "found a string, expected an integer",
        ),
        ("rank", {"candidates": [{SECRET: 1}]}, "candidates[0]: advertiser_id is missing; keys"),
        ("rank", {"stored_forecast": {"advertisers": []}}, "stored_forecast: missing_mass is"),
        ("rank", {"stored_forecast": [SECRET]}, "stored_forecast: found a list"),
    ],
)
def test_bad_input_is_one_line_that_names_the_place_and_no_context(
    page: TestClient, path: str, changed: dict[str, Any], error: str
) -> None:
    document = {**ASKED, "candidates": CANDIDATES} | changed
    response = page.post(f"/api/{path}", json=document)
    assert response.status_code == 400
    answer = response.json()
    assert error in answer["error"]
    assert SECRET not in response.text
    assert "\n" not in answer["error"] + answer["what_to_do"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "error"),
    [
        (b'{"side": ', "application/json", 400, "request: not JSON at line 1"),
        (b"\xff", "application/json", 400, "request: not UTF-8"),
        (b'{"side": NaN}', "application/json", 400, "found NaN"),
        (b"[" * 100_000, "application/json", 400, "nested too deep"),
        (b"[]", "application/json", 400, "found a list"),
        (b'{"a": "\\ud83d\\ude00"}', "application/json", 400, "side is missing; keys found: 1"),
        (b'{"\\ud800": 1}', "application/json", 400, "request: holds text with an unpaired"),
        (b"{}", "text/plain", 415, "Content-Type: found text/plain"),
        (b" " * (3 << 20), "application/json", 413, "more than 2097152 bytes"),
    ],
)
def test_a_body_that_is_no_document_is_refused(
    page: TestClient, body: bytes, kind: str, status: int, error: str
) -> None:
    response = page.post("/api/forecast", content=body, headers={"content-type": kind})
    assert response.status_code == status
    assert error in response.json()["error"]


def test_a_report_whose_name_is_no_unicode_is_refused_in_one_line(
    triton: FakeTriton, open_page: OpenPage, tmp_path: Path
) -> None:
    written = tmp_path / "re\udcffport.html"
    written.write_text("<title>Report</title>")
    reports = find_reports([written])
    written.unlink()
    with open_page(triton, reports=reports) as page:
        response = page.get("/reports/report-1")
    assert response.status_code == 400
    assert "No such file" in response.json()["error"]


def test_a_user_of_256_kib_and_no_more(page: TestClient) -> None:
    empty = len(json.dumps({**USER, "profile": {"note": ""}}, separators=(",", ":")).encode())
    user = USER | {"profile": {"note": "x" * (MAX_CONTEXT_BYTES - empty - 200)}}
    _post(page, "forecast", **ASKED | {"user": user})
    user = USER | {"profile": {"note": "x" * MAX_CONTEXT_BYTES}}
    response = page.post("/api/forecast", json=ASKED | {"user": user})
    assert response.status_code == 400
    assert f"at most {MAX_CONTEXT_BYTES}" in response.json()["error"]


@pytest.mark.parametrize(
    ("status", "found", "what_to_do"),
    [
        (grpc.StatusCode.UNAVAILABLE, 502, "adprior serve"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 502, "busy"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "--timeout"),
        (grpc.StatusCode.UNAUTHENTICATED, 502, "--token-file"),
        (grpc.StatusCode.INTERNAL, 502, "log"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "Correct"),
    ],
)
def test_a_failing_server_is_one_line_with_what_to_do(
    page: TestClient, triton: FakeTriton, status: grpc.StatusCode, found: int, what_to_do: str
) -> None:
    triton.status = status
    response = page.post("/api/forecast", json=ASKED)
    assert response.status_code == found
    answer = response.json()
    assert what_to_do in answer["what_to_do"]
    assert "\n" not in answer["error"]


def test_a_repository_of_another_version_says_to_build_it_again(
    triton: FakeTriton, open_page: OpenPage
) -> None:
    triton.status, triton.message = grpc.StatusCode.INVALID_ARGUMENT, "unexpected output 'MARGIN'"
    with open_page(triton, wait=False) as page:
        await_true(lambda: "not the models of this version" in (sides_of(page)[0]["error"] or ""))
        side = sides_of(page)[0]
    assert side["error"].endswith("unexpected output 'MARGIN'")
    assert side["what_to_do"].endswith("built its repository, build it again.")


def test_a_server_that_is_down_at_first_is_found_when_it_is_up(
    triton: FakeTriton, open_page: OpenPage
) -> None:
    triton.ready = False
    with open_page(triton, wait=False) as page:
        await_true(lambda: "ready" in (sides_of(page)[0]["error"] or ""))
        response = page.post("/api/forecast", json=ASKED)
        assert response.status_code == 502
        usual = triton.answer

        def answer(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
            if model == contract.ADVERTISER_RETRIEVAL:
                triton.release.wait(timeout=60)
            return usual(model, inputs)

        triton.answer, triton.ready = answer, True
        await_true(lambda: "first forecast runs" in (sides_of(page)[0]["error"] or ""))
        triton.release.set()
        await_true(lambda: sides_of(page)[0]["ready"])
        assert sides_of(page)[0]["error"] is None
        _post(page, "forecast", **ASKED)


def test_a_new_bundle_is_noticed_by_its_first_answer(page: TestClient, triton: FakeTriton) -> None:
    _other_bundle(triton)
    tokenizer = {contract.BUNDLE_ID: np.array([[b"bundle-2"]], dtype=np.object_)}
    triton.change(**tokenizer)
    assert _post(page, "forecast", **ASKED)["bundle_id"] == "bundle-2"
    await_true(lambda: sides_of(page)[0]["ready"] and sides_of(page)[0]["bundle_id"] == "bundle-2")


def _change_bundle_after(calls: int, triton: FakeTriton) -> None:
    """Let the first inferences come from bundle-1, and the others from bundle-2."""
    usual, counter = triton.answer, itertools.count()

    def answer(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        name = b"bundle-1" if next(counter) < calls else b"bundle-2"
        return usual(model, inputs) | {contract.BUNDLE_ID: np.array([[name]], dtype=np.object_)}

    triton.answer = answer


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("forecast", {}),
        ("why", {}),
        ("agreement", {"users": [USER, USER | {"history": []}]}),
        ("rank", {"stored_forecast": KEPT.to_json() | {"bundle_id": "bundle-2"}}),
    ],
)
def test_answers_of_two_bundles_are_not_mixed(
    tritons: list[FakeTriton], open_page: OpenPage, path: str, changed: dict[str, Any]
) -> None:
    with open_page(*tritons) as page:
        _change_bundle_after(1, tritons[0])
        document = {**ASKED, "candidates": CANDIDATES} | changed
        response = page.post(f"/api/{path}", json=document)
        assert response.status_code == 409
        assert response.json() == {
            "error": f"{tritons[0].url}: the server got another bundle meanwhile",
            "what_to_do": "Ask again.",
        }
        await_true(lambda: sides_of(page)[0]["bundle_id"] == "bundle-2")


def test_two_searches_of_two_bundles_are_no_forecast(page: TestClient, triton: FakeTriton) -> None:
    _tie_after(2, triton)
    _change_bundle_after(1, triton)
    assert page.post("/api/forecast", json={**ASKED, "k": 2}).status_code == 409


def test_a_ranking_of_another_bundle_has_no_names_of_the_former_one(
    page: TestClient, triton: FakeTriton
) -> None:
    _post(page, "forecast", **ASKED)
    _change_bundle_after(0, triton)
    found = _post(page, "rank", **ASKED, candidates=CANDIDATES)
    assert found["bundle_id"] == "bundle-2"
    assert {row["name"] for row in found["candidates"]} == {None}
    await_true(lambda: sides_of(page)[0]["bundle_id"] == "bundle-2")


def test_a_report_is_shown_as_it_is_and_may_do_nothing(
    triton: FakeTriton, open_page: OpenPage, tmp_path: Path
) -> None:
    written = tmp_path / "quality"
    written.mkdir()
    (written / "report.html").write_text("<title>Quality &amp; more</title><p>here")
    with open_page(triton, reports=find_reports([written])) as page:
        (listed,) = page.get("/api/state").json()["reports"]
        assert listed["title"] == "Quality & more"
        response = page.get(f"/reports/{listed['name']}")
        assert response.text.endswith("<p>here")
        assert "sandbox" in response.headers["content-security-policy"]
        assert "script" not in response.headers["content-security-policy"]
        assert page.get("/reports/other").status_code == 404
        (written / "report.html").unlink()
        assert page.get(f"/reports/{listed['name']}").status_code == 400


def test_an_unknown_path_and_a_wrong_method_are_errors_like_any_other(page: TestClient) -> None:
    assert page.get("/api/nothing").json() == {
        "error": "Not Found",
        "what_to_do": "Open / for the page.",
    }
    assert page.get("/api/forecast").status_code == 405
    assert page.get("/page/../../pyproject.toml").status_code == 404
