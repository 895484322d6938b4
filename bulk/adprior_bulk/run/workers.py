"""The functions that run on Ray's workers; errors come back as text, so that Ray wraps none.

For an error of another package, the text has no stack trace and no message: both could quote a
user's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from adprior_bulk.inputs.pieces import Piece
from adprior_bulk.inputs.staging import stage_piece
from adprior_bulk.run.shard import run_shard
from adprior_bulk.run.shard_plan import ShardPlan, ShardRecord
from adprior_bulk.run.user_forecaster import ForecasterSettings, UserForecaster
from adprior_runtime.errors import (
    AdpriorError,
    ArtefactError,
    EnvironmentProblemError,
    InvalidInputError,
)
from adprior_runtime.text.json_text import to_json

_ERRORS: Final = {
    kind.__name__: kind
    for kind in (AdpriorError, ArtefactError, EnvironmentProblemError, InvalidInputError)
}


class StagingWorker:
    """Splits pieces of the inputs by user."""

    def __init__(self, pieces: Sequence[Piece], directory: Path, shards: int) -> None:
        self._pieces, self._directory, self._shards = pieces, directory, shards

    def __call__(self, item: str) -> str:
        """Stage the piece with this number."""

        def stage() -> str:
            stage_piece(self._pieces[int(item)], self._directory, self._shards)
            return ""

        return _as_text(stage)


class ShardWorker:
    """Does shards, with one forecaster that is opened for the first of them."""

    def __init__(self, plan: ShardPlan, forecaster: ForecasterSettings | None) -> None:
        self._plan, self._settings = plan, forecaster
        self._forecaster: UserForecaster | None = None

    def __call__(self, item: str) -> str:
        """Do the shard with this number; return its record."""

        def work() -> str:
            if self._forecaster is None and self._settings is not None:
                self._forecaster = self._settings.open()
            return run_shard(self._plan, self._forecaster, int(item)).to_json()

        return _as_text(work)


def read_answer(text: str) -> ShardRecord | None:
    """Return a worker's record, None after staging.

    Raises:
        AdpriorError: The worker's error.
    """
    document = json.loads(text)
    if "error" in document:
        raise _ERRORS.get(document["error"], AdpriorError)(document["message"])
    return ShardRecord.parse(document["found"]) if document["found"] else None


def _as_text(work: Callable[[], str]) -> str:
    try:
        return to_json({"found": work()})
    except AdpriorError as error:
        return to_json({"error": type(error).__name__, "message": str(error)})
    except Exception as error:  # noqa: BLE001  the driver reports it
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        detail = error.strerror if isinstance(error, OSError) else ""
        message = f"a worker failed: {type(error).__name__} at {where} {detail or ''}".rstrip()
        return to_json({"error": "AdpriorError", "message": message})
