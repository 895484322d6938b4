"""What a run did, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adprior_build.data.profiles import note_profiles, note_unmatched
from adprior_build.data.repeated_rows import note_repeated
from adprior_bulk.output.manifest import Manifest
from adprior_bulk.run.pace import Pace
from adprior_bulk.run.shard import Record
from adprior_runtime.terminal.tables import format_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run's figures.

    Attributes:
        engine: ``in-process``, ``served``, or ``none`` of a dry run.
        workers: How many.
        counts: Of users, by what became of them, over all shards.
        wall_s: Of the whole command, Ray's start included.
        pace: What this command forecast, and how fast; a run that goes on has others from before.
        seconds: Workers' time, by step.
        peak_rss_mb: The most memory that a worker held.
        version: What was published; empty of a dry run.
        price_per_hour: Of all machines together.
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
        """Sum up shards: all that are done, and those that this command did."""
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
        """Of the forecasts made, those with a certificate."""
        made = self.counts.get("forecast", 0)
        return self.counts.get("exact", 0) / made if made else None

    @property
    def cost_per_million(self) -> float | None:
        """Price of a million forecasts at this command's pace, Ray's start included."""
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
            **{key: self.counts.get(key, 0) for key in _COUNTS},
            "inputs": {key: self.counts.get(key, 0) for key in _FOUND},
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
        """Return what is to be said of the inputs, one line each."""
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
        """Return the table that people see."""
        rows = [(told, f"{self.counts.get(key, 0):,}") for key, told in _COUNTS.items()]
        if self.is_old:
            rows.insert(0, ("done before, nobody is due now", self.version))
        rows += [
            (f"due: {key[4:].replace('_', ' ')}", f"{count:,}")
            for key, count in sorted(self.counts.items())
            if key.startswith("due_")
        ]
        for told, value, form in (
            ("certified exact", self.exact_fraction, "{:.1%}"),
            ("forecasts a second", self.pace.forecasts_per_s, "{:,.1f}"),
            ("seconds of forecasting", self.pace.working_s or None, "{:,.1f}"),
            ("seconds in all", self.wall_s, "{:,.1f}"),
            ("MB, largest worker", self.peak_rss_mb or None, "{:,.0f}"),
            ("cost of a million forecasts", self.cost_per_million, "{:,.2f}"),
        ):
            if value is not None:
                rows.append((told, form.format(value)))
        return format_table([("users", "left"), ("", "right")], rows)


_FOUND = (
    "repeated_dropped",
    "repeated_kept",
    "profiles_repeated",
    "profiles_nameless",
    "without_profile",
)
"""What `adprior_bulk.inputs.assembly.assemble` counts."""

_COUNTS = {
    "users": "in the input",
    "forecast": "forecast",
    "skipped": "nothing new",
    "carried": "carried over",
    "forgotten": "expired and not in the input",
    "from_future": "from the future, dropped",
    "dead_letters": "dead letters",
}
