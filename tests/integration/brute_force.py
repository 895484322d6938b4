"""Scores of every name of a catalogue by transformers, to compare the search with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_BATCH = 512


def name_log_probs(
    model: Any, prompt_ids: Sequence[int], paths: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Return the log-probability of each token path after a prompt, by teacher forcing."""
    by_length: dict[int, list[int]] = {}
    for index, path in enumerate(paths):
        by_length.setdefault(len(path), []).append(index)
    total = np.zeros(len(paths))
    with torch.no_grad():
        prompt = model(torch.tensor([list(prompt_ids)]), use_cache=True)
        first = torch.log_softmax(prompt.logits[0, -1].double(), dim=-1).numpy()
        for length, indices in by_length.items():
            for start in range(0, len(indices), _BATCH):
                part = indices[start : start + _BATCH]
                names = torch.tensor([list(paths[index]) for index in part])
                total[part] = first[names[:, 0].numpy()]
                if length == 1:
                    continue
                cache = copy.deepcopy(prompt.cache)
                cache.batch_repeat_interleave(len(part))
                logits = model(names[:, :-1], cache=cache).logits
                log_probs = torch.log_softmax(logits.double(), dim=-1)
                rest = log_probs.gather(2, names[:, 1:, None])[:, :, 0]
                total[part] += rest.sum(dim=1).numpy()
    return total
