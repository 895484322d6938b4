"""A server's ``/metrics``, read as Prometheus reads it."""

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
    """One reading.

    Attributes:
        text: As it came.
        samples: Name, labels and value of each.
    """

    text: str
    samples: list[tuple[str, dict[str, str], float]]

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples}

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the series of a name that have these labels."""
        wanted = labels.items()
        return sum(n for each, found, n in self.samples if each == name and wanted <= found.items())

    def of_ours(self) -> list[tuple[str, dict[str, str], float]]:
        """Return the samples of our own metrics."""
        return [sample for sample in self.samples if sample[0].startswith("adprior_")]

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return a name's sums by the values of a label."""
        values = {labels[label] for each, labels, _ in self.samples if each == name}
        return {value: self.total(name, **{label: value}) for value in values}


_HANDED_OVER_S = 2.5
"""Models hand their numbers over once a second."""


def read_page(server: TritonServer) -> MetricsPage:
    """Read what a server shows now."""
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
    """Read until ``accept`` likes it: the models hand their numbers over once a second."""
    deadline = time.monotonic() + timeout_s
    while not accept(page := read_page(server)):
        assert time.monotonic() < deadline, page.text
        time.sleep(0.1)
    return page


def read_settled(server: TritonServer) -> MetricsPage:
    """Read once decoder and head have handed over every answer that Triton has counted."""

    def is_settled(page: MetricsPage, model: str, answers: str) -> bool:
        # Triton counts what a step refuses among its successes.
        told = (
            page.total(answers, model=model)
            + page.total("adprior_invalid_requests_total", model=model)
            + page.total("adprior_failed_requests_total", model=model)
        )
        return told == page.total("nv_inference_request_success", model=model)

    # Of each, what is handed over last of an answer.
    last = {
        contract.ADVERTISER_DECODER: "adprior_missing_mass_ratio_count",
        contract.PRIOR_HEAD: "adprior_answers_total",
    }
    page = await_page(server, lambda page: all(is_settled(page, *each) for each in last.items()))
    while True:  # tokenizer and engine count no answers: what they have to say is over when it ends
        time.sleep(_HANDED_OVER_S)
        page, earlier = read_page(server), page
        if page.of_ours() == earlier.of_ours():
            return page
