"""The progress bar of a run, and the pace that both it and the summary show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from tqdm import tqdm

from adprior_bulk.run.shard_plan import ShardRecord

_BAR: Final = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s [{elapsed}{postfix}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Forecasts made by one command, and the time they took.

    Attributes:
        shards: Shards done.
        forecasts: Forecasts made.
        working_s: Time from the start of the first shard to the end of the last, over all workers.
            It excludes starting Ray and splitting the inputs.
    """

    shards: int
    forecasts: int
    working_s: float

    @classmethod
    def of(cls, records: Sequence[ShardRecord]) -> Self:
        """Return the pace of some shards."""
        ends = (record.ended_at for record in records)
        begins = (record.began_at for record in records)
        return cls(
            shards=len(records),
            forecasts=sum(record.counts.get("forecast", 0) for record in records),
            working_s=max(ends, default=0.0) - min(begins, default=0.0),
        )

    @property
    def forecasts_per_s(self) -> float | None:
        """Forecasts per second; None without forecasts."""
        return self.forecasts / self.working_s if self.working_s and self.forecasts else None

    def left_s(self, waiting: int) -> float:
        """Return the seconds that ``waiting`` more shards will take."""
        return self.working_s / self.shards * waiting if self.shards else 0.0


def open_bar(title: str, *, total: int, waiting: int, unit: str, quiet: bool) -> Any:
    """Return a progress bar without a speed of its own."""
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
    """Advance a bar by one shard, and show the forecasts, their rate and the time left."""
    shown = [f"{pace.forecasts:,} forecasts"]
    if pace.forecasts_per_s is not None:
        shown.append(f"{pace.forecasts_per_s:,.1f}/s")
    shown.append(f"{tqdm.format_interval(pace.left_s(waiting))} left")
    bar.set_postfix_str(", ".join(shown), refresh=False)
    bar.update()
