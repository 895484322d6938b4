"""The summary of a run: a table for people, JSON for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adprior_build.data.profiles import note_profiles, note_unmatched
from adprior_build.data.repeated_rows import note_repeated
from adprior_bulk.run.progress import Pace
from adprior_bulk.run.shard_plan import ShardRecord
from adprior_runtime.terminal.tables import format_table


def sum_counts(records: Iterable[ShardRecord]) -> Counter[str]:
    """Return the counts of all records together."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts)
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run's figures.

    Attributes:
        counts: Users by outcome, over all shards.
        wall_s: Time of the whole command, including Ray's start.
        version: The published version; empty for a dry run.
        engine: ``in-process``, ``served``, or ``none`` without forecasts.
        workers: Number of workers.
        now: Shards of this command; a continued run has others from before.
        price_per_hour: Price of all machines together.
        is_old: Whether the same run had been published before.
    """

    counts: Counter[str]
    wall_s: float
    version: str
    engine: str = "none"
    workers: int = 0
    now: Sequence[ShardRecord] = ()
    price_per_hour: float | None = None
    is_old: bool = False

    @property
    def pace(self) -> Pace:
        """Forecasts of this command, and their rate."""
        return Pace.of(self.now)

    @property
    def peak_rss_mb(self) -> float:
        """Peak memory of the largest worker."""
        return max((record.peak_rss_mb for record in self.now), default=0.0)

    @property
    def exact_fraction(self) -> float | None:
        """Share of the forecasts that are certified."""
        made = self.counts["forecast"]
        return self.counts["exact"] / made if made else None

    @property
    def cost_per_million(self) -> float | None:
        """Price of a million forecasts at this command's pace, including Ray's start."""
        if self.price_per_hour is None or not self.pace.forecasts:
            return None
        return self.price_per_hour / 3600 * self.wall_s / self.pace.forecasts * 1e6

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior bulk --json`` prints."""
        seconds: Counter[str] = Counter()
        for record in self.now:
            seconds.update(record.seconds)
        return {
            "version": self.version,
            "engine": self.engine,
            "workers": self.workers,
            **{key: self.counts[key] for key in _OUTCOMES},
            "inputs": {key: self.counts[key] for key in _INPUT_COUNTS},
            "due": self._due(),
            "exact_fraction": self.exact_fraction,
            "forecast_now": self.pace.forecasts,
            "users_per_s": self.pace.forecasts_per_s,
            "working_s": self.pace.working_s,
            "wall_s": self.wall_s,
            "worker_seconds": dict(seconds),
            "rss_mb_per_worker": self.peak_rss_mb,
            "cost_per_million_users": self.cost_per_million,
            "already_published": self.is_old,
        }

    def notes(self) -> list[str]:
        """Return notes about the inputs, one line each."""
        counts = self.counts
        repeated = {key: counts[f"repeated_{key}"] for key in ("dropped", "kept")}
        return [
            *note_repeated("events", **repeated),
            *note_profiles(
                "profiles",
                repeated_users=counts["profiles_repeated"],
                nameless_rows=counts["profiles_nameless"],
            ),
            *note_unmatched(
                "profiles",
                users=counts["active_users"],
                without=counts["without_profile"],
            ),
        ]

    def to_text(self) -> str:
        """Return the summary as a table."""
        rows = [(label, f"{self.counts[key]:,}") for key, label in _OUTCOMES.items()]
        if self.is_old:
            rows.insert(0, ("already published", self.version))
        rows += [
            (f"due: {why.replace('_', ' ')}", f"{count:,}") for why, count in self._due().items()
        ]
        for label, value, form in (
            ("certified exact", self.exact_fraction, "{:.1%}"),
            ("forecasts per second", self.pace.forecasts_per_s, "{:,.1f}"),
            ("forecasting, seconds", self.pace.working_s or None, "{:,.1f}"),
            ("total, seconds", self.wall_s, "{:,.1f}"),
            ("peak memory per worker, MB", self.peak_rss_mb or None, "{:,.0f}"),
            ("cost per million forecasts", self.cost_per_million, "{:,.2f}"),
        ):
            if value is not None:
                rows.append((label, form.format(value)))
        return format_table([("users", "left"), ("", "right")], rows)

    def _due(self) -> dict[str, int]:
        found = {key: count for key, count in sorted(self.counts.items()) if key[:4] == "due_"}
        return {key.removeprefix("due_"): count for key, count in found.items()}


_INPUT_COUNTS = (
    "repeated_dropped",
    "repeated_kept",
    "profiles_repeated",
    "profiles_nameless",
    "without_profile",
)
"""Counts of `adprior_bulk.inputs.assembly.assemble`."""

_OUTCOMES = {
    "users": "in the input",
    "forecast": "forecast",
    "skipped": "unchanged",
    "carried": "carried over",
    "forgotten": "expired and not in the input",
    "from_future": "dated in the future, dropped",
    "dead_letters": "dead letters",
}
