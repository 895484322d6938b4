"""Takes a rollout from share to share, and promotes the canary or rolls it back by the rules."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from adprior_client.rollout.comparison import Looks
from adprior_client.rollout.metrics_page import Group
from adprior_client.rollout.outcomes import OutcomeLog
from adprior_client.rollout.rules import LEVEL, NOT_AWAITED, Judgement, Limits, Verdict, judge
from adprior_client.rollout.switch import Rollout, State, Switch
from adprior_runtime.terminal.progress import progress_bar
from adprior_runtime.terminal.tables import format_percent

_MISSES: Final = 3
"""A canary whose metrics cannot be read this often in a row is lost."""
_ROUNDING: Final = 1e-6


class Outcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    BROKEN = "broken"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a rollout goes.

    Attributes:
        shares: The shares of the users on the canary, growing, each above 0 and below 1.
        hold_s: How long each share is held at least, in seconds.
        longest_s: How long it is held at most, while the rules are open.
        look_s: Time between two looks at the metrics.
    """

    shares: tuple[float, ...]
    hold_s: float
    longest_s: float
    look_s: float

    def level_at(self, seconds: float) -> float:
        """Return the level of the intervals at a look, this long after the step began.

        Each look may end the step. Those before the end of the hold share the errors that `LEVEL`
        allows evenly (Bonferroni), and so do those from then to the longest time.
        """
        if seconds < self.hold_s:
            looks = round(self.hold_s / self.look_s)
        else:
            looks = 1 + math.ceil((self.longest_s - self.hold_s) / self.look_s - _ROUNDING)
        return 1 - (1 - LEVEL) / max(1, looks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One share, held.

    Attributes:
        share: The share of the users on the canary.
        seconds: How long it was held.
        requests: The well-formed requests of the stable servers and of the canary.
        judgements: The rules, applied at the end.
        outcome: How it ended.
        reason: Why it did not pass; empty if it did.
    """

    share: float
    seconds: float
    requests: tuple[int, int]
    judgements: list[Judgement]
    outcome: Outcome
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return a document."""
        return {
            "share": self.share,
            "seconds": round(self.seconds, 3),
            "requests": dict(zip(("stable", "canary"), self.requests, strict=True)),
            "rules": [judgement.to_json() for judgement in self.judgements],
            "outcome": str(self.outcome),
            "reason": self.reason,
        }


class Runner:
    """Runs a rollout.

    Args:
        switch: The file of servers.
        stable: The stable servers' metrics.
        canary: The canary's metrics.
        limits: How much worse the canary may be.
        pace: How fast to go.
        on_step: Called with each step that has ended.
        log: The outcomes of rankings; None for no rule of calibration.
        clock: A monotonic clock, in seconds.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        switch: Switch,
        stable: Group,
        canary: Group,
        limits: Limits,
        pace: Pace,
        on_step: Callable[[Step], None],
        *,
        log: OutcomeLog | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._switch = switch
        self._stable = stable
        self._canary = canary
        self._limits = limits
        self._pace = pace
        self._on_step = on_step
        self._log = log
        self._clock = clock
        self._sleep = sleep

    def run(self, rollout: Rollout, expected: str) -> tuple[Rollout, Outcome]:
        """Go on from the rollout's share; return its last state, and how it ended.

        Args:
            rollout: The rollout; a share of 0 begins it.
            expected: The present text of the file of servers.

        Raises:
            TakenOverError: Somebody else has changed the file, which stays as it is.
        """
        text = expected
        # The share of a rollout that continues is held again, whatever the steps are now.
        shares = [share for share in self._pace.shares if share > rollout.share]
        for share in [rollout.share, *shares] if rollout.share else shares:
            rollout = rollout.change(State.RUNNING, "", share=share)
            text = self._switch.write(rollout, expected=text)
            step = self._hold(share, text)
            if step.outcome is not Outcome.PASSED:
                rollout = rollout.change(State.ROLLED_BACK, step.reason)
                self._switch.write(rollout, expected=text)
                self._on_step(step)
                return rollout, step.outcome
            self._on_step(step)
        rollout = rollout.change(State.PROMOTED, "all rules were kept")
        self._switch.write(rollout, expected=text)
        return rollout, Outcome.PASSED

    def _hold(self, share: float, text: str) -> Step:
        """Look at the metrics until the rules decide, or the longest time is over."""
        self._stable.read()
        self._canary.read()
        restarts = self._restarts()
        looks, began = Looks(), self._clock()
        planned = max(1, round(self._pace.hold_s / self._pace.look_s))
        with progress_bar(
            total=planned, desc=f"{format_percent(share)} of the users", unit="look"
        ) as bar:
            while True:
                self._sleep(self._pace.look_s)
                self._switch.check(text)
                looks.add(self._stable.read(), self._canary.read())
                bar.update(1)
                seconds = self._clock() - began
                judgements = self._judge(looks, seconds)
                outcome, reason = self._decide(looks, judgements, seconds, restarts)
                if outcome is not None:
                    return Step(
                        share=share,
                        seconds=seconds,
                        requests=looks.requests(),
                        judgements=judgements,
                        outcome=outcome,
                        reason=reason,
                    )

    def _judge(self, looks: Looks, seconds: float) -> list[Judgement]:
        outcomes = None
        if self._log is not None:
            bundles = self._stable.bundle_id, self._canary.bundle_id
            outcomes = self._log.read(*bundles)
        return judge(looks, self._limits, self._pace.level_at(seconds), outcomes)

    def _decide(
        self, looks: Looks, judgements: list[Judgement], seconds: float, restarts: int
    ) -> tuple[Outcome | None, str]:
        for page in self._canary.pages:
            if page.misses >= _MISSES:
                return Outcome.BROKEN, f"lost: {page.problem}"
        if self._restarts() > restarts:
            return Outcome.BROKEN, "a server of the canary has started again"
        broken = [each.rule for each in judgements if each.verdict is Verdict.BROKEN]
        if broken:
            return Outcome.BROKEN, f"broken: {', '.join(broken)}"
        undecided = [
            each.rule
            for each in judgements
            if each.verdict is Verdict.OPEN and each.rule not in NOT_AWAITED
        ]
        if not undecided and seconds >= self._pace.hold_s:
            return Outcome.PASSED, ""
        if seconds >= self._pace.longest_s:
            return Outcome.UNDECIDED, self._explain(looks, undecided, seconds)
        return None, ""

    def _explain(self, looks: Looks, undecided: list[str], seconds: float) -> str:
        unread = [page.problem for page in self._stable.pages if page.problem]
        if unread:
            return (
                f"undecided after {seconds:.0f} s: cannot read the stable servers' metrics: "
                f"{unread[0]}"
            )
        stable, canary = looks.requests()
        if min(stable, canary) < self._limits.requests:
            return (
                f"undecided after {seconds:.0f} s: {stable:,} requests of the stable servers and "
                f"{canary:,} of the canary, expected {self._limits.requests:,} of each"
            )
        return f"undecided after {seconds:.0f} s: {', '.join(undecided)}"

    def _restarts(self) -> int:
        return sum(page.restarts for page in self._canary.pages)
