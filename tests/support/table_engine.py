"""A stand-in for a language model: every token path has its own distribution."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from adprior_runtime.engines.base import ROOT, Engine, FirstStep, LogProbs
from adprior_runtime.engines.ranked_tokens import RankedTokens

END = 0


@dataclass
class TableState:
    paths: list[tuple[int, ...]] = field(default_factory=list)


class TableEngine(Engine[TableState]):
    """Log-softmax of random logits, seeded by the prompt and the path."""

    def __init__(self, vocabulary: int, *, seed: int = 0, scale: float = 2.0) -> None:
        self._vocabulary, self._seed, self._scale = vocabulary, seed, scale
        self._prompt: tuple[int, ...] = ()
        self._known: dict[tuple[int, ...], LogProbs] = {}
        self.pass_sizes: list[int] = []

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,
    ) -> tuple[TableState, RankedTokens]:
        self._prompt = tuple(prompt_ids)
        self._known.clear()
        found = self.log_probs(())[np.asarray(next_tokens, dtype=np.int64)]
        return TableState(), RankedTokens.of(found)

    def extend(
        self,
        state: TableState,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        paths = list(state.paths)
        tokens, above = np.asarray(token_ids).tolist(), np.asarray(parents).tolist()
        for token, parent in zip(tokens, above, strict=True):
            assert ROOT <= parent < len(paths)
            paths.append((*(paths[parent] if parent != ROOT else ()), token))
        new = paths[len(state.paths) :]
        self.pass_sizes.append(len(new))
        if keep:
            state.paths = paths
        found = np.stack([self.log_probs(path) for path in new])
        wanted: npt.NDArray[np.float32] = found[np.asarray(rows), np.asarray(next_tokens)]
        return wanted

    def log_probs(self, path: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return the distribution after a path: float32 [vocabulary]."""
        if path in self._known:
            return self._known[path]
        text = repr((self._seed, self._prompt, path)).encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        logits = np.random.default_rng(seed).normal(size=self._vocabulary) * self._scale
        found = np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)
        self._known[path] = found
        return found

    def path_log_prob(self, path: Sequence[int]) -> float:
        """Return the log-probability of a whole path, token by token."""
        steps = zip(itertools.accumulate(([t] for t in path), initial=[]), path, strict=False)
        return float(sum(self.log_probs(tuple(before))[token] for before, token in steps))


@st.composite
def aliased_catalogues(
    draw: st.DrawFn, *, vocabulary: int
) -> tuple[dict[tuple[int, ...], int], TableEngine]:
    """Draw token paths with the rows of their advertisers, of up to three names, and an engine."""
    name = st.lists(st.integers(1, vocabulary - 1), min_size=1, max_size=4)
    paths = draw(st.lists(name.map(lambda n: (*n, END)), min_size=1, max_size=25, unique=True))
    rows: list[int] = []
    while len(rows) < len(paths):
        rows += [max(rows, default=-1) + 1] * draw(st.integers(1, 3))
    owners = draw(st.permutations(rows[: len(paths)]))
    seed, scale = draw(st.integers(0, 999)), draw(st.sampled_from([0.3, 2.0, 5.0]))
    return dict(zip(paths, owners, strict=True)), TableEngine(vocabulary, seed=seed, scale=scale)
