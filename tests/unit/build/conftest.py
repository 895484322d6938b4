"""One small data set and one checkpoint trained on it, for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.shared_files import MakeOnce
from support.small_checkpoint import SmallData


@pytest.fixture(scope="session")
def shared_data(make_once: MakeOnce) -> SmallData:
    return SmallData(directory=make_once("small-data", SmallData.write))


@pytest.fixture(scope="session")
def checkpoint(shared_data: SmallData, make_once: MakeOnce) -> Path:
    """Trained with validation users and seed 3."""
    options = ("--validation-share", "0.2", "--seed", "3")

    def train(place: Path) -> None:
        assert shared_data.train(place / "checkpoint", *options) == 0

    return make_once("small-trained", train) / "checkpoint"
