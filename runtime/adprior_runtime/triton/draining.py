"""How a server comes to say that it is not ready while it still answers.

Triton has no such state: told to stop, it refuses what comes, and says so only then. But with
strict readiness it is not ready for as long as it knows of a model that did not load. So one that
cannot load is asked for, by a model's own process, once `adprior serve` has made a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from adprior_runtime.json_text import to_json

__all__ = ["Draining"]

_NAME: Final = "draining"
_CONFIG: Final = to_json({"name": _NAME, "backend": "none_this_server_is_draining"})
_FILES: Final = {"file:1/none": b""}
_log = logging.getLogger("adprior")


class Draining:
    """Looks for the file, and makes the server say that it is not ready once it is there.

    Args:
        file: What to look for; None where nobody would make one.
        load_model: Triton's.
    """

    def __init__(self, file: str | None, load_model: Callable[..., Any]) -> None:
        self._file = Path(file) if file else None
        self._load_model = load_model

    def look(self) -> None:
        """Look for the file; to be called now and then, and once it was there for nothing."""
        if self._file is None or not self._file.exists():
            return
        self._file = None
        try:
            self._load_model(model_name=_NAME, config=_CONFIG, files=_FILES)
        except Exception:  # noqa: BLE001  of whatever kind: that it fails is the purpose
            _log.warning("the server is draining: it answers, and says that it is not ready")
