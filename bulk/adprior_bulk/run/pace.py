"""How fast a run forecasts: one definition, for the bar, the summary and the JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from tqdm import tqdm

from adprior_bulk.run.shard import Record

_BAR: Final = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s [{elapsed}{postfix}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Forecasts, and the time that they took.

    Attributes:
        shards: How many were done.
        forecasts: How many were made.
        working_s: From the first shard's begin to the last one's end, over all workers: what comes
            before (inputs split by user, Ray and its workers started) is not in it.
    """

    shards: int
    forecasts: int
    working_s: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """Return the pace of shards that one command did."""
        ends = (record.ended_at for record in records)
        begins = (record.began_at for record in records)
        return cls(
            shards=len(records),
            forecasts=sum(record.counts.get("forecast", 0) for record in records),
            working_s=max(ends, default=0.0) - min(begins, default=0.0),
        )

    @property
    def forecasts_per_s(self) -> float | None:
        """Forecasts a second; None where there are none."""
        return self.forecasts / self.working_s if self.working_s and self.forecasts else None

    def left_s(self, waiting: int) -> float:
        """Return the seconds that so many shards more will take."""
        return self.working_s / self.shards * waiting if self.shards else 0.0


def open_bar(title: str, *, total: int, waiting: int, unit: str, quiet: bool) -> Any:
    """Return a progress bar that tells how much is done, and no speed of its own."""
    return tqdm(
        total=total,
        initial=total - waiting,
        desc=title,
        unit=unit,
        bar_format=_BAR,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=quiet,
    )


def show_pace(bar: Any, pace: Pace, waiting: int) -> None:
    """Move a bar on by one shard, and show forecasts, their speed and the time left."""
    told = [f"{pace.forecasts:,} forecasts"]
    if pace.forecasts_per_s is not None:
        told.append(f"{pace.forecasts_per_s:,.1f}/s")
    told.append(f"{tqdm.format_interval(pace.left_s(waiting))} left")
    bar.set_postfix_str(", ".join(told), refresh=False)
    bar.update()
