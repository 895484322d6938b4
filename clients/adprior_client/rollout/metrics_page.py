"""Reads what a rollout compares from servers' pages of metrics, and counts what was added."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from http.client import HTTPException, InvalidURL
from typing import Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import numpy as np
import numpy.typing as npt

from adprior_runtime.contract import (
    ADVERTISER_DECODER,
    ADVERTISER_RANKING,
    ADVERTISER_RETRIEVAL,
    PRIOR_HEAD,
)
from adprior_runtime.errors import AdpriorError
from adprior_runtime.forecast.drift import POPULARITY_BINS
from adprior_runtime.triton.metrics import (
    ANSWERS,
    BUNDLE_INFO,
    FORECAST_SHARE,
    INVALID_REQUESTS,
    MODEL_LABEL,
    SEARCH_TIME,
    Exactness,
)

Counts = npt.NDArray[np.float64]
"""float64 [`FIELDS`]: the counters that `Field` names, then the forecasts of each popularity bin,
then the searches of at most each of `TIME_BOUNDS_S`."""

_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LONGEST_S: Final = 5.0
_MOST_BYTES: Final = 16 << 20
_ENSEMBLES: Final = (ADVERTISER_RETRIEVAL, ADVERTISER_RANKING)


class Field(IntEnum):
    """A counter's place in `Counts`.

    Attributes:
        ANSWERED: Requests of the two ensembles that were answered.
        FAILED: Requests of the two ensembles that failed, refused ones included.
        INVALID: Requests that the models refused: the caller's fault.
        DURATION_US: The time of the answered requests together, queues included.
        FORECASTS: Forecasts made.
        EXACT: Those of them with a certificate.
    """

    ANSWERED = 0
    FAILED = 1
    INVALID = 2
    DURATION_US = 3
    FORECASTS = 4
    EXACT = 5


BINS: Final = slice(len(Field), len(Field) + POPULARITY_BINS)
TIME_BOUNDS_S: Final = (*SEARCH_TIME.buckets, math.inf)
TIMES: Final = slice(BINS.stop, BINS.stop + len(TIME_BOUNDS_S))
FIELDS: Final = TIMES.stop
_TIME_PLACES: Final = {bound: TIMES.start + at for at, bound in enumerate(TIME_BOUNDS_S)}
_DIGITS: Final = 6
"""Decimal digits of the bounds."""
_TIME_BUCKET: Final = f"{SEARCH_TIME.name}_bucket"
_TRITON: Final = {
    "nv_inference_request_success": Field.ANSWERED,
    "nv_inference_request_failure": Field.FAILED,
    "nv_inference_request_duration_us": Field.DURATION_US,
}


class UnreadablePageError(AdpriorError):
    """A server's page of metrics cannot be read, or is not one of adprior's."""


def parse_page(text: str) -> tuple[Counts, str]:
    """Return a page's counters, and the id of the bundle.

    Raises:
        ValueError: It is not the page of a server of adprior that has loaded its models.
    """
    counts, bundle_id = np.zeros(FIELDS), ""
    for name, found, number in _SAMPLE.findall(text):
        if not name.startswith(("adprior_", "nv_inference_request_")):
            continue
        labels, value = dict(_LABEL.findall(found)), float(number)
        model = labels.get(MODEL_LABEL)
        if name in _TRITON and model in _ENSEMBLES:
            counts[_TRITON[name]] += value
        elif name == INVALID_REQUESTS.name and model != PRIOR_HEAD:
            counts[Field.INVALID] += value
        elif name == ANSWERS.name and model == ADVERTISER_DECODER:
            counts[Field.FORECASTS] += value
            counts[Field.EXACT] += value * (labels[ANSWERS.label] == Exactness.EXACT)
        elif name == FORECAST_SHARE.name:
            counts[BINS.start + int(labels[FORECAST_SHARE.label]) - 1] += value
        elif name == _TIME_BUCKET:
            # Triton writes 0.56 as 0.5600000000000001.
            counts[_TIME_PLACES[round(float(labels["le"]), _DIGITS)]] += value
        elif name == BUNDLE_INFO.name:
            bundle_id = labels[BUNDLE_INFO.label]
    if not bundle_id:
        raise ValueError(f"no {BUNDLE_INFO.name}, expected the metrics of adprior serve")
    return counts, bundle_id


def show_url(url: str) -> str:
    """Return a URL for messages: without user info, query and fragment, which may be secrets."""
    scheme, mark, place = re.split(r"[?#]", url, maxsplit=1)[0].rpartition("://")
    return f"{scheme}{mark}{place.rpartition('@')[2]}"


def _explain(error: Exception) -> str:
    """Return why a page cannot be read; some errors would quote the URL, or one sent to us."""
    if isinstance(error, HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, InvalidURL):
        return "not a URL that can be opened"
    return str(getattr(error, "reason", None) or error)


class MetricsPage:
    """One server's page of metrics, read again and again.

    Args:
        url: The page's URL.

    Attributes:
        url: The page's URL.
        bundle_id: The bundle of the last page; empty before the first.
        problem: Why the last reading failed; empty if it did not.
        misses: How many readings in a row have failed, up to the last one.
        restarts: How often the counters began anew.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bundle_id = ""
        self.problem = ""
        self.misses = 0
        self.restarts = 0
        self._last: Counts | None = None

    def fetch(self) -> str:
        """Return the page's text; proxies are not used.

        Raises:
            OSError: The server does not answer in time.
        """
        with build_opener(ProxyHandler({})).open(self.url, timeout=_LONGEST_S) as answer:
            text: bytes = answer.read(_MOST_BYTES)
        return text.decode("utf-8", "replace")

    def read(self) -> Counts:
        """Return what was added since the last good reading; zeros if this one fails."""
        try:
            counts, self.bundle_id = parse_page(self.fetch())
        except (OSError, HTTPException, ValueError, LookupError) as error:
            self.problem = f"{show_url(self.url)}: {_explain(error)}"
            self.misses += 1
            return np.zeros(FIELDS)
        self.problem, self.misses = "", 0
        before, self._last = self._last, counts
        if before is None:
            return np.zeros(FIELDS)
        if (counts < before).any():  # a new process counts from 0
            self.restarts += 1
            return counts
        added: Counts = counts - before
        return added


class Group:
    """The servers of one bundle.

    Args:
        name: ``stable`` or ``canary``.
        pages: Their pages of metrics.
    """

    def __init__(self, name: str, pages: list[MetricsPage]) -> None:
        self.name = name
        self.pages = pages

    @property
    def bundle_id(self) -> str:
        """The bundle of the last pages; empty before the first."""
        return self.pages[0].bundle_id

    def read(self) -> Counts:
        """Return what was added at all servers since the last reading."""
        with ThreadPoolExecutor(len(self.pages)) as pool:
            added: Counts = np.sum(list(pool.map(MetricsPage.read, self.pages)), axis=0)
        return added

    def begin(self) -> str:
        """Read all pages for the first time; return the bundle that the servers serve.

        Raises:
            UnreadablePageError: A page cannot be read, or the servers serve different bundles.
        """
        self.read()
        problems = [page.problem for page in self.pages if page.problem]
        if problems:
            raise UnreadablePageError(f"{self.name}: {problems[0]}")
        if len({page.bundle_id for page in self.pages}) > 1:
            listed = ", ".join(f"{show_url(page.url)}: {page.bundle_id}" for page in self.pages)
            raise UnreadablePageError(f"{self.name}: the servers serve different bundles: {listed}")
        return self.bundle_id
