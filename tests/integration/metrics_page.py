"""Reads a server's ``/metrics``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.request import urlopen

from adprior_runtime import contract
from adprior_runtime.server.tritonserver import TritonServer

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPage:
    """The metrics at one moment.

    Attributes:
        text: The page.
        samples: Name, labels and value of each series.
    """

    text: str
    samples: list[tuple[str, dict[str, str], float]]

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples}

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels."""
        wanted = labels.items()
        return sum(n for each, found, n in self.samples if each == name and wanted <= found.items())

    def without_forecast(self) -> float:
        """Return the well-formed requests without a forecast, as AdpriorRequestsFailing does:
        received, less asked alone, less refused, less answered."""
        received = self.total("nv_inference_request_success", model=contract.TOKENIZER)
        received += self.total("nv_inference_request_failure", model=contract.TOKENIZER)
        received -= self.total("adprior_direct_requests_total")
        refused = self.total("adprior_invalid_requests_total")
        refused -= self.total("adprior_invalid_requests_total", model=contract.PRIOR_HEAD)
        ensembles = contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING
        answered = (self.total("nv_inference_request_success", model=each) for each in ensembles)
        return received - refused - sum(answered)

    def own_samples(self) -> list[tuple[str, dict[str, str], float]]:
        """Return the samples of adprior's metrics, without Triton's."""
        return [sample for sample in self.samples if sample[0].startswith("adprior_")]

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return a metric's sums by the values of a label."""
        values = {labels[label] for each, labels, _ in self.samples if each == name}
        return {value: self.total(name, **{label: value}) for value in values}


_FLUSHED_S = 2.5
"""Models flush their metrics to Triton every second."""


def read_page(server: TritonServer) -> MetricsPage:
    """Read a server's page once."""
    with urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as response:
        text = response.read().decode()
    samples = [
        (name, dict(_LABEL.findall(labels)), float(number))
        for name, labels, number in _SAMPLE.findall(text)
    ]
    return MetricsPage(text=text, samples=samples)


def await_page(
    server: TritonServer, accept: Callable[[MetricsPage], bool], timeout_s: float = 60
) -> MetricsPage:
    """Read until ``accept`` returns true for the page."""
    deadline = time.monotonic() + timeout_s
    while not accept(page := read_page(server)):
        assert time.monotonic() < deadline, page.text
        time.sleep(0.1)
    return page


def read_settled(server: TritonServer) -> MetricsPage:
    """Read until decoder and head have flushed every request that Triton has counted."""

    def is_settled(page: MetricsPage, model: str, answers: str) -> bool:
        # Triton counts refused requests among the successes.
        flushed = (
            page.total(answers, model=model)
            + page.total("adprior_invalid_requests_total", model=model)
            + page.total("adprior_failed_requests_total", model=model)
        )
        return flushed == page.total("nv_inference_request_success", model=model)

    # The metric that each model flushes last for a request.
    last = {
        contract.ADVERTISER_DECODER: "adprior_missing_mass_ratio_count",
        contract.PRIOR_HEAD: "adprior_answers_total",
    }
    page = await_page(server, lambda page: all(is_settled(page, *each) for each in last.items()))
    while True:  # tokenizer and engine count no requests: wait until their metrics stop changing
        time.sleep(_FLUSHED_S)
        page, earlier = read_page(server), page
        if page.own_samples() == earlier.own_samples():
            return page
