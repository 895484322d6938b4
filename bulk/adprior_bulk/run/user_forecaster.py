"""The interface of forecasters: a bundle in this process, or a fleet of servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from adprior_client.user_context import CheckedContext
from adprior_runtime.errors import AdpriorError
from adprior_runtime.prompt.context import UserContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A user to forecast; ``raw`` is the context as JSON, ``context`` the same parsed."""

    user_id: str
    raw: CheckedContext
    context: UserContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasted:
    """A forecast: advertisers, and interests if the run asks for them, most probable first."""

    advertiser_ids: list[int]
    log_probs: list[float]
    exact: bool
    missing_mass: float
    bundle_id: str
    interest_ids: list[int] = field(default_factory=list)
    interest_log_probs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The reason for no forecast: a gRPC status and a line that quotes nothing of the context."""

    code: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Refused:
        """Describe a failure; other packages' messages are left out: they may quote user data."""
        if isinstance(error, AdpriorError):
            return cls(code=error.grpc_code, message=str(error))
        return cls(code="INTERNAL", message=f"internal error ({type(error).__name__})")


Answer = Forecasted | Refused


class UserForecaster(Protocol):
    """Forecasts users."""

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield an answer for each task, in any order.

        Raises:
            AdpriorError: The forecaster failed, and would fail for every user.
        """
        ...

    def close(self) -> None:
        """Release threads and connections."""
        ...


class ForecasterSettings(Protocol):
    """Describes a forecaster; sent to each worker, which opens its own.

    Attributes:
        name: ``in-process`` or ``served``, for the summary.
        gpus: GPUs that each worker needs, 0 or 1.
    """

    name: ClassVar[str]

    @property
    def gpus(self) -> int:
        """See the class."""
        return 0

    def open(self) -> UserForecaster:
        """Return the forecaster, ready to use."""
        ...
