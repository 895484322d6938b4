"""Estimates what a training costs: its tokens from characters, its speed from a matrix product."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from adprior_build.inspection.coded_log import CodedLog
from adprior_build.inspection.split_facts import SplitFacts
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.prompt.template import MAX_FIELD_CHARS

_CHARS_A_TOKEN: Final = 4.0
"""Mean characters a token of names, categories and titles, with Gemma's tokenizer. A training on
The Complete Journey has 1.7 % fewer tokens than this says. The events of Open e-commerce 1.0 have
9 % fewer with names and categories, and 3 % more with titles too."""
_PROFILE_CHARS_A_TOKEN: Final = 2.0
_GAP_TOKENS: Final = 3
_BUDGET: Final = 384
"""The default template's prompt with Gemma 3."""
_REPEATED_SHARE: Final = 0.2
"""See `adprior_build.training.windows`."""
_LAYER_PARAMETERS: Final = 100e6
"""Of Gemma 3 270M; the others are its vocabulary."""
_OPERATIONS_A_PARAMETER: Final = 4
"""A token's multiplications and additions with LoRA: forward, and gradients of what flows back."""
_EFFICIENCY: Final = (0.3, 0.7)
"""The share of a matrix product's speed that a training may reach: a wide guess, not measured."""
_SIZE: Final = 768
_MEASURED_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """The cost of an epoch of LoRA on Gemma 3 270M, in fp32, on this machine.

    Attributes:
        tokens: Tokens of an epoch, with the default template; an estimate.
        tokens_without_text: The same for a column map without ``text``.
        tokens_per_s: The least and the most that can be expected.
        processors: Processors that the process may use.
    """

    tokens: int
    tokens_without_text: int
    tokens_per_s: tuple[float, float]
    processors: int

    @property
    def minutes(self) -> tuple[float, float]:
        """The least and the most minutes of an epoch."""
        slow, fast = self.tokens_per_s
        return self.tokens / fast / 60, self.tokens / slow / 60

    @classmethod
    def estimate(
        cls, coded: CodedLog, split: SplitFacts, profiles: Mapping[str, Mapping[str, str]]
    ) -> TrainingCost:
        """Estimate the cost; the matrix product takes a third of a second."""
        speed = _measure_operations_per_s() / (_OPERATIONS_A_PARAMETER * _LAYER_PARAMETERS)
        low, high = (share * speed for share in _EFFICIENCY)
        count = partial(_count_tokens, coded, split.trains_on(coded), profiles)
        return cls(
            tokens=count(("advertiser", "category", "text")),
            tokens_without_text=count(("advertiser", "category")),
            tokens_per_s=(low, high),
            processors=available_processors(),
        )


def _count_tokens(
    coded: CodedLog,
    trained: npt.NDArray[np.bool_],
    profiles: Mapping[str, Mapping[str, str]],
    parts: Sequence[str],
) -> int:
    """Return the tokens of an epoch's windows that show these parts of events."""
    tokens = np.zeros(len(coded.user))
    for name in parts:
        if name in coded.table.column_names:
            lengths = np.asarray(pc.fill_null(pc.utf8_length(coded.table[name]), 0).to_numpy())
            shown = np.minimum(lengths, MAX_FIELD_CHARS)
            tokens += np.where(lengths > 0, shown / _CHARS_A_TOKEN + 1, 0)
    users = len(coded.users)
    events = np.bincount(coded.user[trained], tokens[trained], users)
    days = np.unique(np.stack([coded.user[trained], coded.day[trained]]), axis=1)[0]
    events += _GAP_TOKENS * np.bincount(days, minlength=users)
    start = 1 + np.array([_profile_tokens(profiles.get(user, {})) for user in coded.users])
    room = np.maximum(_BUDGET - start, 1)
    windows = np.ceil(np.maximum(events - room, 0) / ((1 - _REPEATED_SHARE) * room)) + 1
    total = events + windows * start + (windows - 1) * _REPEATED_SHARE * room
    return int(total[events > 0].sum())


def _profile_tokens(profile: Mapping[str, str]) -> float:
    return sum(min(len(value), MAX_FIELD_CHARS) + 2 for value in profile.values()) / (
        _PROFILE_CHARS_A_TOKEN
    )


def _measure_operations_per_s() -> float:
    """Return the operations a second of float32 matrix products, as busy as the machine is."""
    matrix = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype=np.float32)
    _ = matrix @ matrix  # starts the threads
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < _MEASURED_S or not done:
        _ = matrix @ matrix
        done += 1
    return done * 2.0 * _SIZE**3 / spent
