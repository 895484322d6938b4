from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from adprior_build.training.preferences import (
    PreferenceObjective,
    make_case,
    preference_cases,
    read_preferences,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext
from support.small_models import small_gemma3, small_llama
from unit.build.training.test_windows import RENDERER, TRIE, event, user

END = 1
PROMPTS = [[2, 10, 11, 12], [2, 13]]
NAMES = [[[20, 21, END], [22, END], [20, 23, 24, END]], [[25, END], [26, 27, END]]]
CASES = [make_case(prompt, names) for prompt, names in zip(PROMPTS, NAMES, strict=True)]


def log_probs(model: Any, prompt: list[int], names: list[list[int]]) -> torch.Tensor:
    """Return the names' log-probabilities, each in a sequence of its own."""
    found = []
    for name in names:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *name]])).logits[0]
        each = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        found.append(each[torch.arange(len(name)), torch.tensor(name)].sum())
    return torch.stack(found)


@pytest.mark.parametrize("make", [small_llama, small_gemma3])
def test_the_loss_is_that_of_s_dpo(make: Callable[[int], Any]) -> None:
    start, moved = make(0), make(1)
    reference = [log_probs(start, p, n) for p, n in zip(PROMPTS, NAMES, strict=True)]
    objective = PreferenceObjective(start, CASES, beta=0.3)
    losses, batch = objective.nats(CASES)
    at_start = [torch.log(torch.tensor(1.0 + len(names) - 1)) for names in NAMES]
    torch.testing.assert_close(losses, torch.stack(at_start))
    start.load_state_dict(moved.state_dict())
    losses, batch = objective.nats(CASES)
    for row in range(2):
        gains = log_probs(moved, PROMPTS[row], NAMES[row]) - reference[row]
        total = torch.exp(0.3 * (gains[1:] - gains[0])).sum()
        expected = -torch.log(torch.sigmoid(-torch.log(total)))
        torch.testing.assert_close(losses[row], expected, atol=1e-4, rtol=1e-4)
    assert (batch.targets, batch.names, batch.tokens) == (2, 2, 10 + 5)


def test_a_case_is_a_served_prompt_with_names_of_the_catalogue() -> None:
    history = user(
        event(1, "Acme", "tea"), event(5, "麦穗"), event(5, "Elsewhere"), event(9, "Acme")
    )
    day = history.events[1].time.date()
    preferences = {
        "a": [(day, ["Acme Pets", "麦穗", "Nobody", "Acme"]), (date(2020, 1, 1), ["Acme"])]
    }
    (case,) = preference_cases(preferences, [history], RENDERER, lambda i: TRIE.lookup(i) >= 0, 0)
    context = UserContext(
        profile=history.profile, history=history.events[:1], as_of=history.events[1].time
    )
    prompt = RENDERER.render(context).token_ids
    expected = make_case(prompt, [RENDERER.name_ids(n) for n in ("麦穗", "Acme Pets", "Acme")])
    assert case.token_ids.tolist() == expected.token_ids.tolist()
    assert case.answers.tolist() == expected.answers.tolist()


def test_a_file_is_read_by_user_and_another_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "preferences.parquet"
    table = {"user": ["a"], "day": [date(2024, 5, 1)], "negatives": [["x", "y"]]}
    pa.parquet.write_table(pa.table(table), path)
    assert read_preferences(path) == {"a": [(date(2024, 5, 1), ["x", "y"])]}
    pa.parquet.write_table(pa.table(table | {"day": ["2024-05-01"]}), path)
    with pytest.raises(InvalidInputError, match="column day holds string, expected dates"):
        read_preferences(path)
