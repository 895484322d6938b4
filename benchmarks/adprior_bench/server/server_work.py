"""What a server did between two moments: requests, time in each model's steps, CPU seconds.

Times come from Triton's statistics, CPU seconds from the process tree: tritonserver itself and one
stub for each instance of a Python model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import tritonclient.grpc

from adprior_bench.server.connection import sent_metadata
from adprior_client import ClientConfig
from adprior_runtime.contract import MODEL_NAMES
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.server.processes import model_run_by

STEPS: Final = ("queue", "compute_input", "compute_infer", "compute_output")
"""Of a request in a model, in Triton's words: waiting; copying in; the model; copying out."""

FRONT_END: Final = "tritonserver"
"""The process that takes requests; the others are the models' stubs, named for their model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """What one model did.

    Attributes:
        requests: Answered.
        failures: Refused, timed out, or failed.
        executions: Batches.
        step_s: Seconds in each of `STEPS`, of all requests.
    """

    requests: int = 0
    failures: int = 0
    executions: int = 0
    step_s: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    def step_ms(self) -> dict[str, float]:
        """Return each step's mean of a request."""
        return {step: 1e3 * self.step_s[step] / max(self.requests, 1) for step in STEPS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Counts since the server started.

    Attributes:
        models: By name.
        cpu_s: By process, see `FRONT_END`; None for a server whose processes cannot be seen.
    """

    models: Mapping[str, ModelWork]
    cpu_s: Mapping[str, float] | None

    def since(self, earlier: Snapshot) -> ServerWork:
        """Return what was done since an earlier one."""
        models = {
            name: ModelWork(
                requests=now.requests - then.requests,
                failures=now.failures - then.failures,
                executions=now.executions - then.executions,
                step_s={step: now.step_s[step] - then.step_s[step] for step in STEPS},
            )
            for name, now in self.models.items()
            for then in (earlier.models[name],)
        }
        if self.cpu_s is None or earlier.cpu_s is None:
            return ServerWork(models=models, cpu_s=None)
        if self.cpu_s.keys() != earlier.cpu_s.keys():
            raise EnvironmentProblemError("the server's processes changed while it was measured")
        cpu_s = {name: now - earlier.cpu_s[name] for name, now in self.cpu_s.items()}
        return ServerWork(models=models, cpu_s=cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerWork:
    """What was done between two snapshots; see `Snapshot`."""

    models: Mapping[str, ModelWork]
    cpu_s: Mapping[str, float] | None

    def cpu_s_per_request(self, model: str) -> dict[str, float] | None:
        """Return CPU seconds by process, for each request that a model answered."""
        requests = self.models[model].requests
        if self.cpu_s is None or not requests:
            return None
        return {name: value / requests for name, value in self.cpu_s.items()}


class Server:
    """A running server that is looked at from outside.

    Args:
        connection: Its one address, and what it wants to see.
        pid: Its process, where it runs on this machine.

    Raises:
        InvalidInputError: There is no such process.
    """

    def __init__(self, connection: ClientConfig, pid: int | None) -> None:
        self.connection = connection
        self._headers = dict(sent_metadata(connection))
        self._client = tritonclient.grpc.InferenceServerClient(
            connection.urls[0],
            ssl=connection.is_secure,
            root_certificates=connection.tls_ca_file,
            private_key=connection.tls_key_file,
            certificate_chain=connection.tls_certificate_file,
        )
        try:
            self._root = None if pid is None else psutil.Process(pid)
        except psutil.NoSuchProcess as error:
            raise InvalidInputError(f"--server-pid {pid}: no such process") from error

    def config(self, name: str) -> Any:
        """Return a model's ``ModelConfig``."""
        return self._ask(self._client.get_model_config, name).config

    def snapshot(self) -> Snapshot:
        """Return the counts of this moment."""
        statistics = self._ask(self._client.get_inference_statistics)
        models = {name: ModelWork() for name in MODEL_NAMES}
        models |= {item.name: _model_work(item) for item in statistics.model_stats}
        cpu_s = None if self._root is None else _cpu_s(self._root)
        return Snapshot(models=models, cpu_s=cpu_s)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ask(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments, headers=self._headers, client_timeout=10)
        except tritonclient.grpc.InferenceServerException as error:
            (address,) = self.connection.urls
            raise EnvironmentProblemError(
                f"{address}: the server does not tell its configuration or statistics: "
                f"{error.message()}"
            ) from error


def _cpu_s(root: psutil.Process) -> dict[str, float]:
    """Return the CPU seconds of a process and those below it, by model and `FRONT_END`."""
    cpu_s: dict[str, float] = {}
    try:
        for process in [root, *root.children(recursive=True)]:
            times, name = process.cpu_times(), model_run_by(process.cmdline()) or FRONT_END
            cpu_s[name] = cpu_s.get(name, 0.0) + times.user + times.system
    except psutil.Error as error:
        raise EnvironmentProblemError(f"a process of the server is gone: {error}") from error
    return cpu_s


def _model_work(item: Any) -> ModelWork:
    statistics = item.inference_stats
    return ModelWork(
        requests=statistics.success.count,
        failures=statistics.fail.count,
        executions=item.execution_count,
        step_s={step: getattr(statistics, step).ns / 1e9 for step in STEPS},
    )
