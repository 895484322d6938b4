"""What forecasts: one bundle in this process, or a fleet of servers. The same answers from both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from adprior_runtime.errors import AdpriorError
from adprior_runtime.prompt.context import UserContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A user to forecast.

    Attributes:
        user_id: Whose.
        raw: The user context, JSON.
        context: The same, parsed.
    """

    user_id: str
    raw: bytes
    context: UserContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasted:
    """A forecast; ``advertiser_ids`` and ``log_probs``, most probable first."""

    advertiser_ids: list[int]
    log_probs: list[float]
    exact: bool
    missing_mass: float
    bundle_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why there is none: a gRPC status and a line that quotes nothing of the context."""

    code: str
    message: str


Answer = Forecasted | Refused


class Engine(Protocol):
    """Forecasts users."""

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield an answer for each task, in the order that suits the engine.

        Raises:
            AdpriorError: The engine itself failed; no user is to blame.
        """
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


class EngineSettings(Protocol):
    """What a worker makes its engine from; travels between machines."""

    @property
    def name(self) -> str:
        """``in-process`` or ``served``."""
        ...

    def open(self) -> Engine:
        """Return the engine, ready."""
        ...


def refused(error: Exception) -> Refused:
    """Return what a failure says of a context.

    Of a foreign error only its kind: its message may quote the user's data.
    """
    if isinstance(error, AdpriorError):
        return Refused(code=error.grpc_code, message=str(error))
    return Refused(code="INTERNAL", message=f"internal error ({type(error).__name__})")
