"""adprior and its peers on the same checkpoint and prompts, in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from adprior_bench.search.peers.checkpoint import write_checkpoint
from adprior_bench.search.peers.system import (
    ADPRIOR,
    PEERS,
    AdpriorSearch,
    Answer,
    PeerError,
    PeerProcess,
    System,
)
from adprior_bench.search.peers.truth import Truth, find_truth
from adprior_build.checkpoints.checkpoint import Checkpoint
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine
from adprior_runtime.search.settings import SearchSettings

ROW_KEYS: Final = (
    "system", "model", "catalogue_size", "prompt_tokens", "beam_width", "top_k", "constrained",
    "rounds", "ms", "ms_quartiles", "times_adprior", "times_adprior_quartiles", "processor_ms",
    "processor_times_adprior", "illegal_share", "true_found", "certified_share",
    "log_prob_difference", "problem",
)  # fmt: skip
"""The keys of every row; a value is null where it does not apply. ``true_found`` counts advertisers
of the true top k, on average. ``times_adprior`` is the median of ratios of the same round.
``log_prob_difference`` is the largest difference from adprior's log-probability of a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The model, names and prompts that every system gets.

    Attributes:
        model: The model's name.
        checkpoint, tokenizer: For the peers.
        engine: The same model, for adprior.
        trie: The catalogue's names.
        prompts: Token ids of each user.
        settings: adprior's; every system's beam has its width.
        top_k: Number of advertisers.
        threads: Of every system.
    """

    model: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    engine: Engine[Any]
    trie: Trie
    prompts: Sequence[Sequence[int]]
    settings: SearchSettings
    top_k: int
    threads: int


@dataclass(slots=True)
class _Record:
    """One system's answers, None for the rounds after it failed."""

    system: System | None
    answers: list[Answer | None] = field(default_factory=list)
    problem: str | None = None

    def search(self, prompt: Sequence[int]) -> Answer | None:
        """Return an answer; keep the reason if the system fails."""
        if self.system is None:
            return None
        try:
            return self.system.search(prompt)
        except PeerError as error:
            self.system, self.problem = None, str(error)
            return None


def compare(work: Work, pythons: Mapping[str, str], rounds: int) -> list[dict[str, Any]]:
    """Return a row for adprior and for each peer; see `ROW_KEYS`.

    Every system answers the shortest prompt first, which is not counted. Then it answers the
    prompts in order, again from the first after the last, until there are enough rounds. In each
    round the systems take turns.

    Args:
        work: The model, the catalogue and the prompts.
        pythons: The Python of each peer that is compared, by its key in `PEERS`.
        rounds: Number of counted prompts.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adprior-peers-")))
        search = AdpriorSearch(work.engine, work.trie, work.settings, work.top_k)
        records = {ADPRIOR: _Record(search)} | _start(work, pythons, directory, stack)
        for record in records.values():
            record.search(min(work.prompts, key=len))
        chosen = [work.prompts[each % len(work.prompts)] for each in range(rounds)]
        for prompt in tqdm(chosen, unit="round", desc="peers", leave=False):
            for record in records.values():
                record.answers.append(record.search(prompt))
    # A random model proves nothing, so all names near the k-th are scored: minutes for each prompt.
    prompts = tqdm(work.prompts[:rounds], unit="prompt", desc="true advertisers", leave=False)
    truths = {tuple(each): _truth(work, each) for each in prompts}
    true = [truths[tuple(prompt)] for prompt in chosen]
    return [_row(work, name, records, true) for name in records]


def _start(
    work: Work, pythons: Mapping[str, str], directory: Path, stack: ExitStack
) -> dict[str, _Record]:
    """Start each peer; one that does not start has a problem in place of a system."""
    checkpoint, trie = directory / "checkpoint", directory / "trie"
    checkpoint.mkdir()
    trie.mkdir()
    write_checkpoint(work.checkpoint, work.tokenizer, work.trie.terminator, checkpoint)
    work.trie.save(trie)
    records = {}
    for name, python in pythons.items():
        scratch = directory / name
        scratch.mkdir()
        job = {
            "checkpoint": str(checkpoint),
            "trie": str(trie),
            "scratch": str(scratch),
            "width": work.settings.width,
            "max_tokens": max(map(len, work.prompts)) + work.trie.depth,
            "max_new_tokens": work.trie.depth,
            "end_id": work.trie.terminator,
            "threads": work.threads,
        }
        try:
            process = stack.enter_context(PeerProcess(PEERS[name], python, job))
            records[name] = _Record(process)
        except PeerError as error:
            records[name] = _Record(None, problem=str(error))
    return records


def _truth(work: Work, prompt: Sequence[int]) -> Truth:
    return find_truth(work.engine, work.trie, prompt, work.settings, work.top_k)


def _row(
    work: Work, name: str, records: Mapping[str, _Record], true: Sequence[Truth]
) -> dict[str, Any]:
    record, own = records[name], records[ADPRIOR].answers
    row = dict.fromkeys(ROW_KEYS) | {
        "system": name if name == ADPRIOR else PEERS[name].title,
        "model": work.model,
        "catalogue_size": len(work.trie.leaf_nodes),
        "prompt_tokens": float(np.mean([len(prompt) for prompt in work.prompts])),
        "beam_width": work.settings.width,
        "top_k": work.top_k,
        "constrained": name == ADPRIOR or PEERS[name].is_constrained,
        "rounds": 0,
        "problem": record.problem,
    }
    rounds = [
        (answer, base, truth)
        for answer, base, truth in zip(record.answers, own, true, strict=True)
        if answer is not None and base is not None
    ]
    if not rounds:
        return row
    answers = [answer for answer, _, _ in rounds]
    found = [(advertisers_of(answer, work.trie, work.top_k), t.rows) for answer, _, t in rounds]
    legal = [work.trie.lookup(beam) >= 0 for answer in answers for beam in answer.beams]
    ratios = [answer.ms / base.ms for answer, base, _ in rounds]
    processor = [answer.processor_ms / base.processor_ms for answer, base, _ in rounds]
    return row | {
        "rounds": len(rounds),
        **_summary("ms", [answer.ms for answer in answers]),
        **_summary("times_adprior", ratios),
        "processor_ms": float(np.median([answer.processor_ms for answer in answers])),
        "processor_times_adprior": float(np.median(processor)),
        "illegal_share": 1 - float(np.mean(legal)),
        "true_found": float(np.mean([len(rows & true_rows) for rows, true_rows in found])),
        "log_prob_difference": _difference([(answer, base) for answer, base, _ in rounds]),
        "certified_share": float(np.mean([answer.is_certified for answer in answers])),
    }


def advertisers_of(answer: Answer, trie: Trie, top_k: int) -> set[int]:
    """Return the rows of the ``top_k`` most probable advertisers among the beams.

    Names of one advertiser add up, if the system tells their log-probabilities.
    """
    sums: dict[int, float] = {}
    for place, (beam, log_prob) in enumerate(zip(answer.beams, answer.log_probs, strict=True)):
        if (row := trie.lookup(beam)) >= 0:
            score = -float(place) if log_prob is None else log_prob
            sums[row] = float(np.logaddexp(sums[row], score)) if row in sums else score
    return set(sorted(sums, key=lambda row: -sums[row])[:top_k])


def _difference(rounds: Sequence[tuple[Answer, Answer]]) -> float | None:
    """Return the largest difference in log-probability between names that both systems found."""
    differences = [0.0]
    for answer, own in rounds:
        if None in answer.log_probs:
            return None
        known = dict(zip(map(tuple, own.beams), own.log_probs, strict=True))
        for beam, log_prob in zip(map(tuple, answer.beams), answer.log_probs, strict=True):
            if (expected := known.get(beam)) is not None and log_prob is not None:
                differences.append(abs(log_prob - expected))
    return float(np.max(differences))  # NaN where one is


def _summary(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Return the median and the quartiles, as two items of a row."""
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return {name: median, f"{name}_quartiles": [low, high]}
