from __future__ import annotations

from collections.abc import Iterator

import pytest

from adprior_bench.quality.ranking import base_ranker


@pytest.fixture(scope="session", autouse=True)
def few_rounds() -> Iterator[None]:
    """Fit the base ranker in fewer rounds than a benchmark does: the tests' logs are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_ranker, "ROUNDS", 60)
        yield
