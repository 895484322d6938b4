from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import adprior_client

HEAVY = (
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pytriton",
    "redis",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
)


def _loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after ``statement``."""
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_client_loads_nothing_heavy() -> None:
    assert not _loaded_by("import adprior_client").intersection(HEAVY)


def test_the_client_loads_only_the_standard_library_and_tritonclient() -> None:
    added = _loaded_by("import adprior_client") - _loaded_by("import tritonclient.grpc")
    assert added - sys.stdlib_module_names == {"adprior_client", "adprior_runtime"}


def test_the_exported_names() -> None:
    assert adprior_client.__all__ == [
        "Advertiser",
        "AsyncRankingClient",
        "AsyncRetrievalClient",
        "BadAnswerError",
        "BlendedItem",
        "BreakerOpenError",
        "CancelledError",
        "ClientConfig",
        "ClientError",
        "Concentration",
        "DeadlineError",
        "DeniedError",
        "DiscoveryCounts",
        "Event",
        "Forecast",
        "ForecastRequest",
        "ForecastSource",
        "Interest",
        "InvalidArgumentError",
        "ItemSource",
        "LookupCounts",
        "MetadataError",
        "OtherBundleError",
        "OverloadedError",
        "ParquetForecasts",
        "RankedCandidate",
        "Ranking",
        "RankingClient",
        "Reason",
        "RedisForecasts",
        "RetrievalClient",
        "RetrievedItem",
        "ScoreRequest",
        "Source",
        "UnavailableError",
        "User",
        "advertiser_concentration",
        "blend_retrieved",
    ]
    assert all(hasattr(adprior_client, name) for name in adprior_client.__all__)


_MAKE = ("config", "stored", "kill_switch", "metadata")
_ASK = ("user_id", "treatment", "deadline_s", "request_id")
_FORECAST = ("user", "k", "user_id", "excluded_advertiser_ids", *_ASK[1:], "interest_k")
_SCORE = ("user_or_forecast", "candidates", "base_logits", *_ASK)
_MANY = ("requests", "max_concurrency", "deadline_s")


@pytest.mark.parametrize(
    ("client", "methods"),
    [
        ("RetrievalClient", {"forecast": _FORECAST, "forecast_many": _MANY}),
        ("AsyncRetrievalClient", {"forecast": _FORECAST, "forecast_many": _MANY}),
        ("RankingClient", {"score": _SCORE, "score_many": _MANY}),
        ("AsyncRankingClient", {"score": _SCORE, "score_many": _MANY}),
    ],
)
def test_the_signatures_of_the_clients(client: str, methods: dict[str, tuple[str, ...]]) -> None:
    kind = getattr(adprior_client, client)
    assert tuple(inspect.signature(kind).parameters) == _MAKE
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert public == {*methods, "close", "discovery"}
    for name, parameters in methods.items():
        assert tuple(inspect.signature(getattr(kind, name)).parameters) == ("self", *parameters)
