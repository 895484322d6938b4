"""Preferences: a user's advertiser before hard negatives, by a softmax over their gains (S-DPO).

The loss of a case is ``-log sigmoid(-log sum_n exp(beta * (r_n - r_p)))``. ``r`` is the gain in
log-probability of a name over the starting model, ``p`` the advertiser that the user acted on, and
``n`` runs over the negatives (Chen et al. 2024, arXiv 2406.09215).

A case is one sequence: the prompt, then every name as a branch that sees the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from adprior_build.data.event_log import UserHistory
from adprior_build.data.tables import read_table
from adprior_build.training.batches import Batch
from adprior_build.training.checkpoint import next_token_logits
from adprior_build.training.windows import SEEN, Window
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.terminal.progress import track

_COLUMNS = {"user": "text", "day": "dates", "negatives": "lists of names"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreferenceCase(Window):
    """A prompt with the names that are compared; the first is the user's.

    Attributes:
        branches: int32 [tokens]: 0 for the prompt, else the number of the name, from 1.
        positions: int32 [tokens]: the place in the sequence that a token would have alone.
        columns: int32 [answers]: where each token of a name is predicted.
        answers: int32 [answers]: these tokens, terminators included.
        names_of: int32 [answers]: the number of the name, from 0.
    """

    branches: NDArray[np.int32]
    positions: NDArray[np.int32]
    columns: NDArray[np.int32]
    answers: NDArray[np.int32]
    names_of: NDArray[np.int32]


def make_case(prompt: Sequence[int], names: Sequence[Sequence[int]]) -> PreferenceCase:
    """Return the case of a prompt and of names with their terminators, the user's name first."""
    ids, branches, positions = list(prompt), [0] * len(prompt), list(range(len(prompt)))
    columns: list[int] = []
    for number, name in enumerate(names, start=1):
        first = len(ids)
        ids += name[:-1]
        branches += [number] * (len(name) - 1)
        positions += range(len(prompt), len(prompt) + len(name) - 1)
        columns += [len(prompt) - 1, *range(first, len(ids))]
    parts = {
        "token_ids": ids,
        "targets": [len(prompt)],  # one loss a case
        "branches": branches,
        "positions": positions,
        "columns": columns,
        "answers": [token for name in names for token in name],
        "names_of": [number for number, name in enumerate(names) for _ in name],
    }
    arrays: dict[str, Any] = {key: np.array(part, dtype=np.int32) for key, part in parts.items()}
    return PreferenceCase(
        **arrays,
        kinds=np.full(1, SEEN, dtype=np.int8),
        names=1,
        new_names=0,
    )


def read_preferences(path: Path) -> dict[str, list[tuple[Any, list[str]]]]:
    """Return each user's days and their negatives.

    Raises:
        InvalidInputError: The file is missing, or a column is missing or of another type.
    """
    table = read_table(path, list(_COLUMNS))
    kinds = (pa.types.is_string, pa.types.is_date, pa.types.is_list)
    for (name, expected), is_right in zip(_COLUMNS.items(), kinds, strict=True):
        if not is_right(table.schema.field(name).type):
            found = table.schema.field(name).type
            raise InvalidInputError(f"{path}: column {name} holds {found}, expected {expected}")
    days: dict[str, list[tuple[Any, list[str]]]] = {}
    for row in table.to_pylist():
        days.setdefault(row["user"], []).append((row["day"], row["negatives"] or []))
    return days


def preference_cases(
    preferences: Mapping[str, Sequence[tuple[Any, Sequence[str]]]],
    users: Sequence[UserHistory],
    renderer: PromptRenderer,
    is_known: Callable[[tuple[int, ...]], bool],
    seed: int,
) -> list[PreferenceCase]:
    """Return the cases of these users, each with one random advertiser of its day.

    Names that the user acted on that day are no negatives; unknown names are left out.

    Args:
        preferences: What `read_preferences` returned.
        users: Users with the events that training may see.
        renderer: Renders the prompts.
        is_known: Whether a name's tokens are in the catalogue.
        seed: Seed of the draws.
    """
    random = np.random.default_rng([seed, 3])
    cases = []

    def known(names: Sequence[str]) -> dict[tuple[int, ...], None]:
        return dict.fromkeys(ids for n in names if is_known(ids := tuple(renderer.name_ids(n))))

    for user in track(users, desc="preferences", unit="user", leave=False):
        for day, negatives in preferences.get(user.user_id, ()):
            of_day = known([e.advertiser or "" for e in user.events if e.time.date() == day])
            others = [name for name in known(negatives) if name not in of_day]
            if not of_day or not others:
                continue
            start = datetime.combine(day, time(), tzinfo=UTC)
            context = UserContext(
                profile=user.profile, history=user.before(start).events, as_of=start
            )
            chosen = list(of_day)[int(random.integers(len(of_day)))]
            cases.append(make_case(renderer.render(context).token_ids, [chosen, *others]))
    return cases


class PreferenceObjective:
    """Computes the loss on cases, against the model as it is when this object is made.

    Args:
        model: A causal language model.
        cases: All cases.
        beta: How far the model may move from its start: the larger, the less.
        bf16: Compute matrix products in bfloat16.
        device: Where the model is.
    """

    def __init__(
        self,
        model: Any,
        cases: Sequence[PreferenceCase],
        *,
        beta: float,
        bf16: bool = False,
        device: str = "cpu",
    ) -> None:
        self.model = model
        self._beta, self._bf16, self._device = beta, bf16, device
        model.eval()
        self._reference: dict[bytes, torch.Tensor] = {}
        with torch.no_grad():
            for case in track(cases, desc="reference", unit="case", leave=False):
                (self._reference[_key(case)],) = self._log_probs([case])

    def nats(self, windows: Sequence[Window]) -> tuple[torch.Tensor, Batch]:
        """Return the loss of each case, float32 [cases], and the cases' batch."""
        cases = [window for window in windows if isinstance(window, PreferenceCase)]
        losses = []
        for case, log_probs in zip(cases, self._log_probs(cases), strict=True):
            gains = log_probs - self._reference[_key(case)]
            against = torch.logsumexp(self._beta * (gains[1:] - gains[0]), dim=0)
            losses.append(-torch.nn.functional.logsigmoid(-against))
        return torch.stack(losses), Batch.of(cases, device=self._device)

    def _log_probs(self, cases: Sequence[PreferenceCase]) -> list[torch.Tensor]:
        """Return each case's log-probabilities, float32 [names]."""
        longest = max(len(case.token_ids) for case in cases)
        ids, positions = np.zeros((2, len(cases), longest), dtype=np.int64)
        branches = np.full((len(cases), longest), -1, dtype=np.int64)
        for row, case in enumerate(cases):
            ids[row, : len(case.token_ids)] = case.token_ids
            positions[row, : len(case.token_ids)] = case.positions
            branches[row, : len(case.token_ids)] = case.branches
        hidden = self._run(ids, positions, branches)
        found = []
        for row, case in enumerate(cases):
            columns = torch.from_numpy(case.columns).long().to(self._device)
            answers = torch.from_numpy(case.answers).long().to(self._device)
            names_of = torch.from_numpy(case.names_of).long().to(self._device)
            logits = next_token_logits(self.model, hidden[row, columns])
            nats = torch.nn.functional.cross_entropy(logits, answers, reduction="none")
            names = torch.zeros(int(case.names_of[-1]) + 1, device=self._device)
            found.append(names.index_add(0, names_of, -nats))
        return found

    def _run(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64], branches: NDArray[np.int64]
    ) -> torch.Tensor:
        """Return the last hidden states [cases, longest, hidden]."""
        longest = ids.shape[1]
        same = branches[:, :, None] == branches[:, None, :]
        seen = (same | (branches[:, None, :] == 0)) & np.tri(longest, dtype=np.bool_)
        lowest = torch.finfo(torch.float32).min
        mask = torch.zeros(seen.shape).masked_fill(torch.from_numpy(~seen), lowest)[:, None]
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._bf16):
            output = self.model.get_decoder()(
                input_ids=torch.from_numpy(ids).to(self._device),
                position_ids=torch.from_numpy(positions).to(self._device),
                attention_mask=mask.to(self._device),
                use_cache=False,
            )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def _key(case: PreferenceCase) -> bytes:
    return case.token_ids.tobytes() + case.branches.tobytes()
