from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adprior_client.rollout.comparison import Looks
from adprior_client.rollout.metrics_page import BINS, FIELDS, Counts, Field, Group, MetricsPage
from adprior_client.rollout.outcomes import OutcomeLog, Outcomes
from adprior_client.rollout.report import format_step
from adprior_client.rollout.rules import Judgement, Limits, judge
from adprior_client.rollout.steps import Outcome, Pace, Runner, Step
from adprior_client.rollout.switch import Rollout, State, Switch, TakenOverError
from support.fake_triton_with_metrics import POPULAR
from support.outcome_logs import write_outcomes

BEGUN = Rollout(state=State.RUNNING, stable=("a:8001",), canary=("b:8001",))
PACE = Pace(shares=(0.1, 0.5), hold_s=100, longest_s=300, look_s=10)


class MadeUpGroup(Group):
    """Servers that count what a test says at each look."""

    def __init__(self, name: str, added: Callable[[], Counts]) -> None:
        super().__init__(name, [MetricsPage("http://made-up/metrics")])
        self.added = added

    def read(self) -> Counts:
        return self.added()


def _counts(answered: int = 200, failed: int = 0) -> Counts:
    found = np.zeros(FIELDS)
    found[Field.ANSWERED] = found[Field.FORECASTS] = found[Field.EXACT] = answered
    found[Field.FAILED], found[Field.DURATION_US] = failed, 1e4 * answered
    found[BINS] = np.array(POPULAR) * answered
    return found


class Scene:
    """A rollout on made-up groups, with a clock that sleeping moves."""

    def __init__(self, path: Path) -> None:
        self.switch = Switch(path)
        self.now = 0.0
        self.stable = MadeUpGroup("stable", _counts)
        self.canary = MadeUpGroup("canary", _counts)
        self.steps: list[Step] = []
        self.shares: list[float | None] = []
        self.at_look: Callable[[], None] = lambda: None
        self.log: OutcomeLog | None = None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.shares.append(max(each.canary_share or 0 for each in self.switch.read()[1]))
        self.at_look()

    def run(self, rollout: Rollout = BEGUN) -> tuple[Rollout, Outcome]:
        runner = Runner(
            self.switch,
            self.stable,
            self.canary,
            Limits(),
            PACE,
            self.steps.append,
            log=self.log,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return runner.run(rollout, self.switch.read_text())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "servers")


def test_every_share_is_held_and_then_all_users_follow(scene: Scene) -> None:
    rollout, outcome = scene.run()
    assert (rollout.state, outcome) == (State.PROMOTED, Outcome.PASSED)
    assert scene.switch.read()[0] == rollout
    assert scene.shares == [0.1] * 10 + [0.5] * 10
    assert [(step.share, step.seconds) for step in scene.steps] == [(0.1, 100), (0.5, 100)]
    assert {step.requests for step in scene.steps} == {(2000, 2000)}


def test_a_rollout_continues_at_its_share(scene: Scene) -> None:
    running = BEGUN.change(State.RUNNING, "", share=0.3)
    scene.switch.write(running, expected="")
    scene.run(running)
    assert scene.shares == [0.3] * 10 + [0.5] * 10


def test_failures_end_a_hold_early(scene: Scene) -> None:
    scene.canary.added = lambda: _counts(100, failed=100)
    rollout, outcome = scene.run()
    assert (rollout.state, outcome) == (State.ROLLED_BACK, Outcome.BROKEN)
    assert (rollout.reason, scene.now) == ("broken: error rate", 10)
    assert scene.switch.read()[0] == rollout


def test_a_hold_waits_for_requests_and_then_gives_up(scene: Scene) -> None:
    scene.canary.added = lambda: _counts(9)
    rollout, outcome = scene.run()
    assert (rollout.state, outcome) == (State.ROLLED_BACK, Outcome.UNDECIDED)
    assert scene.now == 300
    assert rollout.reason == (
        "undecided after 300 s: 6,000 requests of the stable servers and 270 of the canary, "
        "expected 1,000 of each"
    )


def test_a_rollout_says_that_it_cannot_read_the_stable_metrics(scene: Scene) -> None:
    scene.stable.added = lambda: np.zeros(FIELDS)
    scene.stable.pages[0].problem = "http://made-up/metrics: Connection refused"
    rollout, outcome = scene.run()
    assert outcome is Outcome.UNDECIDED
    assert rollout.reason == (
        "undecided after 300 s: cannot read the stable servers' metrics: "
        "http://made-up/metrics: Connection refused"
    )


def test_a_hold_takes_longer_until_there_are_enough_requests(scene: Scene) -> None:
    scene.canary.added = lambda: _counts(50)
    _, outcome = scene.run()
    assert outcome is Outcome.PASSED
    assert [step.seconds for step in scene.steps] == [200, 200]


def test_a_rule_that_stays_open_does_not_promote(scene: Scene) -> None:
    scene.canary.added = lambda: _counts(990, failed=10)
    rollout, outcome = scene.run()
    assert (outcome, rollout.reason) == (Outcome.UNDECIDED, "undecided after 300 s: error rate")


@pytest.mark.parametrize(
    ("label", "reason"), [(1, "broken: calibration"), (0, "all rules were kept")]
)
def test_outcomes_that_come_during_a_step_can_end_it(
    scene: Scene, tmp_path: Path, label: int, reason: str
) -> None:
    rows = [("blue", 0), ("blue", 1)] * 500
    scene.log = OutcomeLog(write_outcomes(tmp_path / "log.parquet", rows))
    for group, bundle_id in ((scene.stable, "blue"), (scene.canary, "green")):
        group.pages[0].bundle_id = bundle_id

    def add_outcomes() -> None:
        if len(scene.shares) == 3:
            outcomes = [("green", label), ("green", 1)] * 500
            write_outcomes(tmp_path / "log.parquet", [*rows, *outcomes])

    scene.at_look = add_outcomes
    rollout, _ = scene.run()
    assert rollout.reason == reason
    if label:
        assert scene.now == 30
        assert "  1.00 of expected  2.00 of expected" in format_step(scene.steps[0])


@pytest.mark.parametrize("misses", [2, 3])
def test_a_canary_that_is_lost_is_rolled_back(scene: Scene, misses: int) -> None:
    def lose() -> None:
        if len(scene.shares) > 4:
            page.misses = min(page.misses + 1, misses)
            page.problem = "http://made-up/metrics: Connection refused"

    (page,), scene.at_look = scene.canary.pages, lose
    rollout, outcome = scene.run()
    assert outcome is (Outcome.BROKEN if misses == 3 else Outcome.PASSED)
    if misses == 3:
        assert rollout.reason == "lost: http://made-up/metrics: Connection refused"
        assert scene.now == 70


def test_a_canary_that_starts_again_is_rolled_back(scene: Scene) -> None:
    def restart() -> None:
        scene.canary.pages[0].restarts = 1 + (len(scene.shares) > 3)

    restart()  # one before the rollout does not count
    scene.at_look = restart
    rollout, _ = scene.run()
    assert rollout.reason == "a server of the canary has started again"
    assert scene.now == 40


@pytest.mark.parametrize(
    ("seconds", "looks"), [(10, 10), (99, 10), (100, 21), (150, 21), (300, 21), (310, 21)]
)
def test_looks_that_may_end_a_step_share_its_errors(seconds: float, looks: int) -> None:
    assert PACE.level_at(seconds) == pytest.approx(1 - 0.05 / looks)


def test_a_step_that_ends_with_the_hold_has_one_look_then() -> None:
    pace = Pace(shares=(0.1,), hold_s=0.3, longest_s=0.3, look_s=0.1)
    assert [pace.level_at(seconds) for seconds in (0.1, 0.3)] == pytest.approx([1 - 0.05 / 3, 0.95])


def test_looks_after_the_hold_have_wider_intervals(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []

    def noted(
        looks: Looks, limits: Limits, level: float, outcomes: tuple[Outcomes, Outcomes] | None
    ) -> list[Judgement]:
        levels.append(level)
        return judge(looks, limits, level, outcomes)

    monkeypatch.setattr("adprior_client.rollout.steps.judge", noted)
    scene.canary.added = lambda: _counts(9)
    scene.run()
    assert levels == pytest.approx([1 - 0.05 / 10] * 9 + [1 - 0.05 / 21] * 21)


def test_a_file_that_somebody_changes_ends_the_rollout(scene: Scene) -> None:
    def change() -> None:
        if len(scene.shares) == 3:
            scene.switch.path.write_text("a:8001\n")

    scene.at_look = change
    with pytest.raises(TakenOverError):
        scene.run()
    assert scene.switch.read_text() == "a:8001\n"


def test_a_step_is_shown_as_a_table(scene: Scene) -> None:
    scene.canary.added = lambda: _counts(100, failed=100)
    scene.run()
    heading, columns, *rows, end, _ = format_step(scene.steps[0]).split("\n")
    assert heading == (
        "10.0 % of the users on the canary, 10 s: 200 requests of the stable servers, "
        "200 of the canary"
    )
    assert columns.split() == ["rule", "stable", "canary", "compared", "interval", "limit"]
    assert rows[0].startswith("error rate")
    assert rows[0].split()[2:8] == ["0.0", "%", "50.0", "%", "+50.00", "points"]
    assert rows[0].endswith("+1.00 points  broken")
    assert rows[1].split()[-3:] == ["1.50", "times", "open"]
    assert end == "broken: error rate"
