"""The shipped model on a real tritonserver: forecasts for four made-up users, then a ranking.

``make demo`` runs it. So does ``python demo/demo.py`` if ``adprior[embedded]`` is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient
from adprior_runtime.bundle import Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.cli import main as adprior
from adprior_runtime.errors import AdpriorError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.tables import format_bar, format_percent, format_table

HERE: Final = Path(__file__).resolve().parent
USERS: Final = ("new_parent", "home_baker", "dog_owner", "no_history")
RANKED_USER: Final = "dog_owner"
CANDIDATES: Final = (
    # Candidates of an ads stack for the dog owner, with its ranker's logits.
    ("Amazon Basics", -2.6),
    ("Purina", -2.9),
    ("Blue Buffalo", -3.0),
    ("Anker", -3.0),
    ("Pampers", -3.1),
    ("KONG", -3.2),
    ("Wilton", -3.3),
)
UNKNOWN_ADVERTISER: Final = (999_999_999, -3.0)
_Answer = TypeVar("_Answer")


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=HERE / "bundle", help="another bundle")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="adprior-demo-") as directory:
            _show(arguments.bundle, Path(directory) / "repository")
    except AdpriorError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def _show(bundle: Path, repository: Path) -> None:
    print("Assembling the model repository from the shipped bundle ...", flush=True)
    if adprior(["build", "--bundle", str(bundle), "--output", str(repository)]) != 0:
        raise AdpriorError("the bundle could not be assembled")
    grpc_port, http_port, metrics_port = free_ports(3)
    print("Starting tritonserver ...", flush=True)
    with TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    ) as server:
        with (
            RetrievalClient(
                ClientConfig(urls=(server.grpc_address,), deadline_s=30, fail_open=False)
            ) as retrieval,
            RankingClient(
                ClientConfig(urls=(server.grpc_address,), deadline_s=30, fail_open=False)
            ) as ranking,
        ):
            retrieval.forecast(_read_user("no_history"), 1)  # the first call warms the engine
            forecasts = {name: _show_forecast(retrieval, name) for name in USERS}
            _show_ranking(ranking, bundle, forecasts[RANKED_USER])
        print("\nStopping tritonserver ...", flush=True)


def _show_forecast(retrieval: RetrievalClient, name: str) -> Forecast:
    user = _read_user(name)
    forecast, elapsed_ms = _time(lambda: retrieval.forecast(user, 20))
    profile = user["profile"]
    recent = list(dict.fromkeys(e["advertiser"] for e in reversed(user["history"])))[:5]
    print(f"\n── {name.replace('_', ' ')} " + "─" * (76 - len(name)))
    print(f"{profile['age']}, household of {profile['household_size']}, {profile['home_state']}")
    print(f"bought lately: {', '.join(recent) or 'nothing yet'}\n")
    shown = forecast.advertisers[:8]
    best = shown[0].probability
    own = {event["advertiser"] for event in user["history"]}
    rows = [
        [
            str(rank),
            item.name,
            "bought before" if item.name in own else "",
            format_percent(item.probability),
            format_bar(item.probability / best),
        ]
        for rank, item in enumerate(shown, start=1)
    ]
    columns = [("", "right"), ("advertiser", "left"), ("", "left"), ("probability", "right")]
    print(format_table([*columns, ("", "left")], rows))  # type: ignore[list-item]
    proof = "proved" if forecast.exact else "not proved"
    print(
        f"\nthe 20 most probable are forecast ({proof}); all other advertisers together have at "
        f"most {format_percent(forecast.missing_mass)} · {elapsed_ms:.0f} ms"
    )
    return forecast


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
