from __future__ import annotations

import math

import numpy as np
import pytest

from adprior_client.rollout.metrics_page import (
    BINS,
    FIELDS,
    TIME_BOUNDS_S,
    TIMES,
    Field,
    Group,
    MetricsPage,
    UnreadablePageError,
    parse_page,
)
from support.fake_triton_with_metrics import POPULAR, metrics_text, running_with_metrics


class MadeUpPage(MetricsPage):
    """A page whose texts, or errors, a test lists."""

    def __init__(self, *texts: str | OSError) -> None:
        super().__init__("http://made-up:8002/metrics")
        self._texts = list(texts)

    def fetch(self) -> str:
        text = self._texts.pop(0)
        if isinstance(text, OSError):
            raise text
        return text


def test_a_page_is_counted() -> None:
    text = metrics_text(
        answered=90, failed=10, invalid=4, duration_us=1.8e6, exact=60, bounded=30, bins=POPULAR,
        times_s=[0.0018, 0.0019, 999],
    )  # fmt: skip
    counts, bundle_id = parse_page(text)
    assert bundle_id == "blue"
    assert counts.shape == (FIELDS,)
    assert counts[: len(Field)].tolist() == [90, 10, 4, 1.8e6, 90, 60]
    assert counts[BINS].tolist() == list(POPULAR)
    at_most = dict(zip(TIME_BOUNDS_S, counts[TIMES], strict=True))
    assert [at_most[bound] for bound in (0.0013, 0.0018, 0.0024, 75, math.inf)] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("text", ["", "# nothing\n", "nv_inference_request_success 3\n", "<html>"])
def test_other_pages_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no adprior_bundle_info, expected the metrics of adprior"):
        parse_page(text)


def test_only_what_was_added_counts() -> None:
    page = MadeUpPage(
        metrics_text(answered=5), metrics_text(answered=7), metrics_text(answered=7, failed=2)
    )
    assert page.read().tolist() == [0.0] * FIELDS
    assert page.read()[Field.ANSWERED] == 2
    assert page.read().tolist() == [0, 2, *[0] * (FIELDS - 2)]
    assert page.restarts == 0


def test_a_server_that_starts_again_counts_from_zero() -> None:
    after = metrics_text(answered=50, exact=7, bounded=1)  # some counters have caught up
    page = MadeUpPage(metrics_text(answered=50, exact=5, bounded=45), after)
    page.read()
    assert page.read().tolist() == parse_page(after)[0].tolist()
    assert page.restarts == 1


def test_a_page_that_cannot_be_read_is_counted_and_costs_no_requests() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    page = MadeUpPage(metrics_text(answered=1), refused, "no page", metrics_text(answered=9))
    page.read()
    assert not page.read().any()
    assert (page.misses, page.problem) == (1, f"{page.url}: {refused}")
    assert not page.read().any()
    assert page.misses == 2
    assert "no adprior_bundle_info" in page.problem
    assert page.read()[Field.ANSWERED] == 8
    assert (page.misses, page.problem) == (0, "")


def test_a_group_is_the_sum_of_its_servers() -> None:
    pages = [MadeUpPage(*(metrics_text(answered=n) for n in each)) for each in ((1, 3), (10, 20))]
    group = Group("stable", [*pages])
    assert group.begin() == "blue"
    assert group.read()[Field.ANSWERED] == 12


def test_a_group_begins_with_readable_pages_of_one_bundle() -> None:
    mixed = Group(
        "canary", [MadeUpPage(metrics_text(bundle_id=name)) for name in ("green", "blue")]
    )
    with pytest.raises(UnreadablePageError, match="canary: the servers serve different bundles: "):
        mixed.begin()
    silent = Group("canary", [MadeUpPage(TimeoutError("timed out"))])
    with pytest.raises(UnreadablePageError, match="canary: http://made-up:8002/metrics: timed out"):
        silent.begin()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:1/metrics?token=secret", "http://127.0.0.1:1/metrics: "),
        ("http://me:secret@127.0.0.1:1/metrics", "http://127.0.0.1:1/metrics: "),
        ("http://me:secret@127.0.0.1/metrics", "http://127.0.0.1/metrics: not a URL that can"),
        ("http://127.0.0.1:1/m?token=secret word", "http://127.0.0.1:1/m: not a URL that can"),
        ("http://me:sec/ret@host:1/m#secret", "http://host:1/m: "),
    ],
)
def test_messages_show_no_secret_of_a_url(url: str, shown: str) -> None:
    page = MetricsPage(url)
    page.read()
    assert page.problem.startswith(shown)
    assert "secret" not in page.problem
    with pytest.raises(UnreadablePageError, match=f"canary: {shown}"):
        Group("canary", [page]).begin()


def test_an_answer_with_an_error_is_named_by_its_status() -> None:
    with running_with_metrics("green") as [server]:
        page = MetricsPage(f"http://{server.metrics_address}/nowhere")
        page.read()
    assert page.problem == f"{page.url}: HTTP status 404"


def test_pages_are_read_over_http() -> None:
    with running_with_metrics("green") as [server]:
        page = MetricsPage(f"http://{server.metrics_address}/metrics")
        page.read()
        assert (page.bundle_id, page.problem) == ("green", "")
    assert not np.any(page.read())
    assert page.problem.startswith(f"{page.url}: ")
