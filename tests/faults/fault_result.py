"""The effect of a fault on the load, compared with the promises in docs/faults.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from adprior_runtime.terminal.tables import Column, format_table
from faults.traffic import Traffic

MAX_EXCESS_MS: Final = 20.0
MAX_RECOVERY_S: Final = 5.0
MAX_QUIET_S: Final = 1.0
"""The load goes on for 6 s after recovery, with 20 live calls a second."""
_QUANTILE: Final = 0.999
_COLUMNS: Final = (
    "calls", "returned", "adjusted", "overshoot_ms", "idle_ms", "excess_ms", "worst_ms",
    "worst_idle_ms", "recovery_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """The figures of one fault.

    Attributes:
        fault: Name of the fault.
        calls: Calls that began.
        returned: Share of calls that returned a healthy server's logits, or the caller's own
            unchanged.
        adjusted: Calls with a healthy server's logits.
        reasons: Calls with the caller's own logits, by reason.
        wrong: All other calls, by outcome and reason.
        overshoot_ms: 99.9th percentile of the time beyond a call's deadline.
        idle_ms: The same percentile of the idle control.
        worst_ms: Longest time beyond a call's deadline.
        worst_idle_ms: The longest time of the idle control.
        recovery_s: Seconds from the fault's end to the first live answer to a later call; None if
            there was none.
        quiet_s: Seconds from the last live answer to the end of the load.
    """

    fault: str
    calls: int
    returned: float
    adjusted: int
    reasons: dict[str, int]
    wrong: dict[str, int]
    overshoot_ms: float
    idle_ms: float
    worst_ms: float
    worst_idle_ms: float
    recovery_s: float | None
    quiet_s: float

    @classmethod
    def of(cls, fault: str, traffic: Traffic, repaired_at: float) -> Self:
        """Return the figures of a load that has ended."""
        calls = traffic.calls
        adjusted = sum(call.outcome == "adjusted" for call in calls)
        reasons = Counter(str(call.reason) for call in calls if call.outcome == "base")
        wrong = Counter(
            f"{call.outcome} {call.reason}"
            for call in calls
            if call.outcome not in {"adjusted", "base"}
        )
        wrong["never returned"] = traffic.started - len(calls)
        overshoots_s = [call.overshoot_s for call in calls]
        back_at = traffic.first_live_answer(repaired_at)
        return cls(
            fault=fault,
            calls=traffic.started,
            returned=(adjusted + reasons.total()) / traffic.started,
            adjusted=adjusted,
            reasons=dict(reasons),
            wrong=dict(+wrong),
            overshoot_ms=_quantile_ms(overshoots_s),
            idle_ms=_quantile_ms(traffic.idle_delays_s),
            worst_ms=1e3 * max(overshoots_s, default=0.0),
            worst_idle_ms=1e3 * max(traffic.idle_delays_s, default=0.0),
            recovery_s=None if back_at is None else back_at - repaired_at,
            quiet_s=max(call.ended for call in calls)
            - max((call.ended for call in calls if call.is_live_answer), default=0.0),
        )

    @property
    def excess_ms(self) -> float:
        """The overshoot beyond the idle control's."""
        return self.overshoot_ms - self.idle_ms

    def failures(self, *, is_timed: bool) -> list[str]:
        """Return the broken promises; without ``is_timed``, only those a busy machine must keep."""
        found = []
        if self.returned < 1 or self.wrong:
            found.append(f"{self.returned:.4%} of calls returned allowed logits: {self.wrong}")
        if self.recovery_s is None:
            found.append("no live answer came after the fault")
        elif is_timed and self.recovery_s > MAX_RECOVERY_S:
            found.append(f"live answers were back after {self.recovery_s:.1f} s")
        if is_timed and self.quiet_s > MAX_QUIET_S:
            found.append(f"no live answer came in the last {self.quiet_s:.1f} s of the load")
        if is_timed and self.excess_ms > MAX_EXCESS_MS:
            found.append(f"calls exceeded deadlines by {self.excess_ms:.1f} ms beyond the control")
        return found

    def to_document(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self) | {
            "excess_ms": self.excess_ms,
            "failures": self.failures(is_timed=True),
        }


def format_results(results: list[FaultResult]) -> str:
    """Return a table of the figures."""
    columns: list[Column] = [("fault", "left")]
    columns += [(name.replace("_", " "), "right") for name in _COLUMNS]
    columns += [("reasons of base logits", "left")]
    rows = []
    for result in results:
        figures = result.to_document()
        reasons = " ".join(f"{name}:{count}" for name, count in sorted(result.reasons.items()))
        numbers = ["never" if figures[n] is None else f"{figures[n]:,.5g}" for n in _COLUMNS]
        rows.append([result.fault, *numbers, reasons])
    return format_table(columns, rows)


def _quantile_ms(seconds: list[float]) -> float:
    return float(1e3 * np.quantile(seconds, _QUANTILE)) if seconds else 0.0
