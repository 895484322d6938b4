"""``adprior bench bulk``'s figures as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from adprior_runtime.terminal.tables import Column, format_table


def report_text(report: dict[str, Any], *, daily: float, hours: float) -> str:
    """Return the tables that people see."""
    parts = []
    if report["rows"]:
        parts.append(_table(report["rows"], ("engine", "workers", "users", *_SHOWN)))
    if "incremental" in report:
        found = report["incremental"]
        parts.append(
            f"a day later, {found['active_share']:.0%} of users active: {found['work_share']:.1%} "
            f"of {found['users']:,} forecast, {found['worker_seconds_share']:.1%} of the workers' "
            "time"
        )
    if "memory" in report:
        columns = ("rss_mb_per_worker", "rss_mb_driver", "rss_mb_ray", "growth", "users_per_s")
        parts.append(_table(report["memory"], ("users", "forecast", *columns)))
    if "sizing" in report:
        parts.append(f"{daily:,.0f} users a day within {hours:g} hours:")
        parts.append(_table(report["sizing"], tuple(report["sizing"][0])))
        parts.append("\n".join(f"- {assumed}" for assumed in report["assumptions"]))
    return "\n\n".join(parts)


_SHOWN: Final = (
    "users_per_s",
    "scaling_efficiency",
    "rss_mb_per_worker",
    "exact_fraction",
    "skipped",
    "dead_letters",
)


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    texts = {"engine", "machine"}
    columns: list[Column] = [
        (name.replace("_", " "), "left" if name in texts else "right") for name in names
    ]
    return format_table(columns, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")
