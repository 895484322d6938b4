"""What a fault did to the load, beside what is promised."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from adprior_runtime.terminal.tables import format_table
from faults.traffic import Traffic

MOST_EXCESS_MS: Final = 20.0
MOST_RECOVERY_S: Final = 5.0
MOST_QUIET_S: Final = 1.0
"""The load goes on for 6 s after a forecast is back, and asks for 20 in each."""
_QUANTILE: Final = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of one fault.

    Attributes:
        fault: Its name.
        calls: How many were begun.
        returned: Share that came back with logits that can be ranked with: adjusted as a healthy
            server does, or the caller's own to the last bit.
        adjusted: How many were of the first kind.
        reasons: Of the second kind, by reason.
        unfit: What came back otherwise, by kind.
        overshoot_ms: By which calls outlasted their deadlines, 99.9th percentile.
        control_ms: By which threads did that only waited.
        worst_ms: The longest that a call outlasted its deadline.
        worst_control_ms: The longest that a waiting thread did.
        recovery_s: From the fault's end to the first live forecast asked for after it; None where
            none came.
        quiet_s: From the last live forecast to the end of the load: whether they are back for good.
    """

    fault: str
    calls: int
    returned: float
    adjusted: int
    reasons: dict[str, int]
    unfit: dict[str, int]
    overshoot_ms: float
    control_ms: float
    worst_ms: float
    worst_control_ms: float
    recovery_s: float | None
    quiet_s: float

    @classmethod
    def of(cls, fault: str, traffic: Traffic, cleared_at: float) -> Self:
        """Judge a load that has ended."""
        calls = traffic.calls
        outcomes = Counter(call.outcome for call in calls)
        fit = outcomes["adjusted"] + outcomes["base"]
        back_at = traffic.first_live_answer(cleared_at)
        last_at = max((c.ended for c in calls if c.is_live and c.outcome == "adjusted"), default=0)
        lost = traffic.started - len(calls)
        return cls(
            fault=fault,
            calls=traffic.started,
            returned=fit / traffic.started,
            adjusted=outcomes["adjusted"],
            reasons=dict(Counter(str(call.reason) for call in calls if call.outcome == "base")),
            unfit=dict(
                Counter(
                    f"{call.outcome} {call.reason}"
                    for call in calls
                    if call.outcome not in {"adjusted", "base"}
                )
                + Counter({"never returned": lost})
            ),
            overshoot_ms=_quantile_ms([call.overshoot_s for call in calls]),
            control_ms=_quantile_ms(traffic.control_s),
            worst_ms=1e3 * max((call.overshoot_s for call in calls), default=0.0),
            worst_control_ms=1e3 * max(traffic.control_s, default=0.0),
            recovery_s=None if back_at is None else back_at - cleared_at,
            quiet_s=max(call.ended for call in calls) - last_at,
        )

    @property
    def excess_ms(self) -> float:
        """The overshoot that is the client's."""
        return self.overshoot_ms - self.control_ms

    def misses(self, *, is_timed: bool) -> list[str]:
        """Return what does not hold; what a loaded machine spoils only where ``is_timed``."""
        found = []
        if self.returned < 1 or self.unfit:
            found.append(f"{self.returned:.4%} of calls returned what they may: {self.unfit}")
        if self.recovery_s is None:
            found.append("no forecast came back")
        elif is_timed and self.recovery_s > MOST_RECOVERY_S:
            found.append(f"forecasts were back after {self.recovery_s:.1f} s")
        if is_timed and self.quiet_s > MOST_QUIET_S:
            found.append(f"none came in the last {self.quiet_s:.1f} s of the load")
        if is_timed and self.excess_ms > MOST_EXCESS_MS:
            found.append(f"deadlines were overshot by {self.excess_ms:.1f} ms more than idly")
        return found

    def to_document(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self) | {"excess_ms": self.excess_ms, "misses": self.misses(is_timed=True)}


def format_verdicts(verdicts: list[Verdict]) -> str:
    """Return a table for people."""
    columns = [("fault", "left"), ("calls", "right"), ("returned", "right"), ("adjusted", "right")]
    columns += [("overshoot p99.9", "right"), ("idle", "right"), ("excess", "right")]
    columns += [
        ("worst", "right"),
        ("idle worst", "right"),
        ("back after", "right"),
        ("reasons of base logits", "left"),
    ]
    cells = [
        [
            verdict.fault,
            f"{verdict.calls:,}",
            f"{verdict.returned:.2%}",
            f"{verdict.adjusted:,}",
            f"{verdict.overshoot_ms:.1f} ms",
            f"{verdict.control_ms:.1f} ms",
            f"{verdict.excess_ms:+.1f} ms",
            f"{verdict.worst_ms:.1f} ms",
            f"{verdict.worst_control_ms:.1f} ms",
            "never" if verdict.recovery_s is None else f"{verdict.recovery_s:.2f} s",
            " ".join(f"{reason}:{count}" for reason, count in sorted(verdict.reasons.items())),
        ]
        for verdict in verdicts
    ]
    return format_table(columns, cells)  # type: ignore[arg-type]


def _quantile_ms(seconds: list[float]) -> float:
    return float(1e3 * np.quantile(seconds, _QUANTILE)) if seconds else 0.0
