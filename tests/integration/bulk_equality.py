"""Compares every user's bulk forecast with the server's for the same context.

The server's contexts are made from what training reads, not by the tested code::

    PYTHONPATH=tests python -m integration.bulk_equality --events E --profiles P --columns MAP \
        --bundle demo/bundle --as-of 2022-09-01 --scratch DIRECTORY
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import read_users
from adprior_build.repository.repository_builder import fill_repository
from adprior_bulk.inputs.pieces import Inputs
from adprior_bulk.run.bundle_forecaster import BundleSettings
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.job import Job
from adprior_client import Event, RetrievalClient, User
from adprior_client.user_context import user_to_json
from adprior_runtime.bundle import Bundle
from adprior_runtime.terminal.options import day
from integration.bulk_kills import read_output, same_forecast
from support.servers import serve, start_server

_MOST_EVENTS = 1500
"""The limit for each user: more do not fit into a request, and far fewer fit into a prompt."""


def contexts_of(inputs: Inputs, as_of: datetime) -> dict[str, bytes]:
    """Return the contexts of the users with an event before a time."""
    assert inputs.events is not None
    assert inputs.columns is not None
    users = (u.before(as_of) for u in read_users(inputs.events, inputs.profiles, inputs.columns))
    return {
        user.user_id: user_to_json(
            User(
                profile=user.profile,
                history=[
                    Event(
                        time=event.time,
                        action=event.action,
                        advertiser=event.advertiser,
                        category=event.category,
                        text=event.text,
                    )
                    for event in user.events[-_MOST_EVENTS:]
                ],
                as_of=as_of,
            )
        )
        for user in users
        if user.events
    }


def assert_equal_to_server(
    table: pa.Table, contexts: Mapping[str, bytes], client: RetrievalClient
) -> None:
    """Assert that each row equals the server's forecast, and that no user is missing."""
    assert table["user_id"].to_pylist() == sorted(contexts)
    for row in tqdm(table.to_pylist(), unit="user", desc="server", disable=len(table) < 100):
        answer = client.forecast(contexts[row["user_id"]])
        served = {item.advertiser_id: item.log_prob for item in answer.advertisers}
        stored = dict(zip(row["advertiser_ids"], row["log_probs"], strict=True))
        assert same_forecast(stored, served)
        assert (row["exact"], row["bundle_id"]) == (answer.exact, answer.bundle_id)
        assert abs(row["missing_mass"] - answer.missing_mass) < 1e-3


def run_and_compare(inputs: Inputs, bundle: Path, as_of: datetime, scratch: Path) -> int:
    """Compare bulk forecasts with a server of the same bundle; return the number of users."""
    rules = Rules(
        as_of=as_of,
        max_age=timedelta(days=7),
        lateness=timedelta(days=30),
        bundle_id=Bundle.open(bundle, ()).manifest.bundle_id,
        shards=16,
    )
    forecaster = BundleSettings(bundle=bundle.resolve(), top_k=None)
    Job(output=scratch / "out", inputs=inputs, rules=rules, forecaster=forecaster).run()
    (scratch / "repository").mkdir()
    fill_repository(scratch / "repository", Bundle.open(bundle))
    table = read_output(scratch / "out")
    with serve(start_server(scratch / "repository")) as served:
        assert_equal_to_server(table, contexts_of(inputs, as_of), served.retrieval)
    return int(table.num_rows)


def main() -> None:
    """Compare all users."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("events", "profiles", "columns", "bundle", "scratch"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--as-of", type=day, required=True)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    inputs = Inputs(
        events=args.events, profiles=args.profiles, columns=ColumnMap.load(args.columns)
    )
    as_of = datetime.combine(args.as_of, time(), tzinfo=UTC)
    users = run_and_compare(inputs, args.bundle, as_of, args.scratch)
    print(f"{users} users: every forecast equals the server's")


if __name__ == "__main__":
    main()
