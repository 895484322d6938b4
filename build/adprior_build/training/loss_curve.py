"""The course of the training loss: a point for every few steps, of a bounded number of points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_MOST_POINTS: Final = 128


@dataclass(slots=True, kw_only=True)
class LossCurve:
    """Sums of consecutive steps. When there are 128 points, each two become one.

    Attributes:
        steps_per_point: Steps of a full point; the last point may have fewer.
        steps: Steps of the last point.
        nats: Each point's sum of nats.
        names: Each point's number of names.
    """

    steps_per_point: int = 1
    steps: int = 0
    nats: list[float] = field(default_factory=list)
    names: list[int] = field(default_factory=list)

    def add(self, nats: float, names: int) -> None:
        """Add a step."""
        if not self.nats or self.steps == self.steps_per_point:
            if len(self.nats) == _MOST_POINTS:
                self._halve()
            self.nats.append(0.0)
            self.names.append(0)
            self.steps = 0
        self.nats[-1] += nats
        self.names[-1] += names
        self.steps += 1

    def losses(self) -> list[float]:
        """Return each point's loss in nats a name; points without names are left out."""
        return [nats / names for nats, names in zip(self.nats, self.names, strict=True) if names]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of ``training.json``."""
        return {
            "steps_per_point": self.steps_per_point,
            "nats_a_name": [round(loss, 4) for loss in self.losses()],
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LossCurve:
        """Read what ``asdict`` made of a curve."""
        return cls(**document)

    def _halve(self) -> None:
        self.nats = [sum(self.nats[place : place + 2]) for place in range(0, len(self.nats), 2)]
        self.names = [sum(self.names[place : place + 2]) for place in range(0, len(self.names), 2)]
        self.steps_per_point *= 2
