"""The summary of a run: a table for people, JSON for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adprior_build.data.profiles import note_profiles, note_unmatched
from adprior_build.data.repeated_rows import note_repeated
from adprior_bulk.output.manifest import Manifest
from adprior_bulk.run.progress import Pace
from adprior_bulk.run.shard_plan import Record
from adprior_runtime.terminal.tables import format_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run's figures.

    Attributes:
        engine: ``in-process``, ``served``, or ``none`` for a dry run.
        workers: Number of workers.
        counts: Users by outcome, over all shards.
        wall_s: Time of the whole command, including Ray's start.
        pace: Forecasts of this command and their rate; a continued run has others from before.
        seconds: Workers' time, by step.
        peak_rss_mb: Peak memory of the largest worker.
        version: The published version; empty for a dry run.
        price_per_hour: Price of all machines together.
        is_old: Whether the same run had been published before.
    """

    engine: str
    workers: int
    counts: dict[str, int]
    wall_s: float
    pace: Pace
    seconds: dict[str, float]
    peak_rss_mb: float
    version: str
    price_per_hour: float | None = None
    is_old: bool = False

    @classmethod
    def of(
        cls,
        done: Sequence[Record],
        now: Sequence[Record],
        *,
        engine: str,
        workers: int,
        wall_s: float,
        version: str,
        price_per_hour: float | None,
    ) -> Summary:
        """Sum up all shards (``done``) and those of this command (``now``)."""
        counts: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        for record in done:
            counts.update(record.counts)
        for record in now:
            seconds.update(record.seconds)
        return cls(
            engine=engine,
            workers=workers,
            counts=dict(counts),
            wall_s=wall_s,
            pace=Pace.of(now),
            seconds=dict(seconds),
            peak_rss_mb=max((record.peak_rss_mb for record in now), default=0.0),
            version=version,
            price_per_hour=price_per_hour,
        )

    @classmethod
    def of_published(cls, manifest: Manifest, wall_s: float) -> Summary:
        """Return the summary of a run that had been published before."""
        return cls(
            engine="none",
            workers=0,
            counts=dict(manifest.counts),
            wall_s=wall_s,
            pace=Pace.of([]),
            seconds={},
            peak_rss_mb=0.0,
            version=manifest.version,
            is_old=True,
        )

    @property
    def exact_fraction(self) -> float | None:
        """Share of the forecasts that are certified."""
        made = self.counts.get("forecast", 0)
        return self.counts.get("exact", 0) / made if made else None

    @property
    def cost_per_million(self) -> float | None:
        """Price of a million forecasts at this command's pace, including Ray's start."""
        if self.price_per_hour is None or not self.pace.forecasts:
            return None
        return self.price_per_hour / 3600 * self.wall_s / self.pace.forecasts * 1e6

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior bulk --json`` prints."""
        due = {key[4:]: n for key, n in sorted(self.counts.items()) if key.startswith("due_")}
        return {
            "version": self.version,
            "engine": self.engine,
            "workers": self.workers,
            **{key: self.counts.get(key, 0) for key in _OUTCOMES},
            "inputs": {key: self.counts.get(key, 0) for key in _INPUT_COUNTS},
            "due": due,
            "exact_fraction": self.exact_fraction,
            "forecast_now": self.pace.forecasts,
            "users_per_s": self.pace.forecasts_per_s,
            "working_s": self.pace.working_s,
            "wall_s": self.wall_s,
            "worker_seconds": self.seconds,
            "rss_mb_per_worker": self.peak_rss_mb,
            "cost_per_million_users": self.cost_per_million,
            "already_published": self.is_old,
        }

    def notes(self) -> list[str]:
        """Return notes about the inputs, one line each."""
        counts = self.counts
        repeated = {key: counts.get(f"repeated_{key}", 0) for key in ("dropped", "kept")}
        return [
            *note_repeated("events", **repeated),
            *note_profiles(
                "profiles",
                repeated_users=counts.get("profiles_repeated", 0),
                nameless_rows=counts.get("profiles_nameless", 0),
            ),
            *note_unmatched(
                "profiles",
                users=counts.get("active_users", 0),
                without=counts.get("without_profile", 0),
            ),
        ]

    def to_text(self) -> str:
        """Return the summary as a table."""
        rows = [(label, f"{self.counts.get(key, 0):,}") for key, label in _OUTCOMES.items()]
        if self.is_old:
            rows.insert(0, ("already published", self.version))
        rows += [
            (f"due: {key[4:].replace('_', ' ')}", f"{count:,}")
            for key, count in sorted(self.counts.items())
            if key.startswith("due_")
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
