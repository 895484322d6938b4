from __future__ import annotations

from dataclasses import asdict

import pytest

from adprior_build.training.loss_curve import LossCurve


@pytest.mark.parametrize(
    ("steps", "points", "per_point"),
    [(0, 0, 1), (3, 3, 1), (128, 128, 1), (129, 65, 2), (1000, 125, 8)],
)
def test_the_number_of_points_is_bounded(steps: int, points: int, per_point: int) -> None:
    curve = LossCurve()
    for step in range(steps):
        curve.add(float(step), 1)
    assert (len(curve.losses()), curve.steps_per_point) == (points, per_point)
    assert sum(curve.nats) == sum(range(steps))
    assert sum(curve.names) == steps


def test_a_point_is_a_loss_per_name() -> None:
    curve = LossCurve()
    for nats, names in ((6.0, 2), (0.0, 0), (5.0, 1)):
        curve.add(nats, names)
    assert curve.losses() == [3.0, 5.0]
    assert curve.to_json() == {"steps_per_point": 1, "nats_a_name": [3.0, 5.0]}


def test_a_curve_that_was_kept_goes_on() -> None:
    curve = LossCurve()
    for step in range(130):
        curve.add(float(step), 1)
    again = LossCurve.of(asdict(curve))
    for each in (curve, again):
        each.add(7.0, 1)
    assert again == curve
