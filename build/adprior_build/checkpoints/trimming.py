"""A smaller vocabulary: tokenizer and embeddings cut together, so that texts keep their tokens.

A byte-pair tokenizer joins the adjacent pair of the earliest merge again and again. With a part of
its merges it takes the same steps on a text, if that part contains every step that it took before.
So each token that a text needs is kept with the shorter ones that it is joined from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from adprior_build.checkpoints.byte_pairs import BytePairs
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track
from adprior_runtime.text.json_text import to_json

_EMBEDDINGS: Final = ("model.embed_tokens.weight", "lm_head.weight")
_TOKEN_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")
_BATCH: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedVocabulary:
    """The tokens that are kept, and their tokenizer.

    Attributes:
        kept: int32 [new size], ascending: the old id of each new one.
        tokenizer: The new tokenizer.
    """

    kept: NDArray[np.int32]
    tokenizer: Tokenizer

    def trim_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a model's configuration with the new size and ids; absent tokens become None."""
        new_ids = self._new_ids()

        def renumber(token: Any) -> Any:
            if isinstance(token, list):
                return [new_ids[each] for each in token if each in new_ids] or None
            return new_ids.get(token)

        ids = {name: renumber(config[name]) for name in _TOKEN_IDS if name in config}
        return {**config, **ids, "vocab_size": len(self.kept)}

    def _new_ids(self) -> dict[int, int]:
        return {old: new for new, old in enumerate(self.kept.tolist())}


class TrimmedWeights(Mapping[str, NDArray[np.float32]]):
    """Weights with only the kept rows of the embeddings and of the output layer.

    Args:
        weights: All weights.
        kept: int32, the old id of each new token.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], kept: NDArray[np.int32]) -> None:
        self._weights = weights
        self._kept = kept

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return one weight."""
        values = self._weights[name]
        return values[self._kept] if name in _EMBEDDINGS else values

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self._weights)


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """Return how many distinct texts contain each token; added tokens are spelt, as in prompts."""
    plain = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    counts: Counter[int] = Counter()
    distinct = list(dict.fromkeys(texts))
    starts = range(0, len(distinct), _BATCH)
    for start in track(starts, desc="tokens of the log", unit="batch", leave=False):
        for encoding in plain.encode_batch(distinct[start : start + _BATCH]):
            counts.update(set(encoding.ids))
    return counts


def trim_vocabulary(
    tokenizer: Tokenizer,
    needed: Iterable[int],
    *,
    common: Mapping[int, int] | None = None,
    size: int = 0,
    config: Mapping[str, Any] | None = None,
) -> TrimmedVocabulary:
    """Keep the tokens that are needed, then common ones until the vocabulary is full.

    All bytes and ASCII characters are kept, and the special tokens of ``config`` and of the
    tokenizer itself. Behind ``common`` come the tokens of the earliest merges, if their characters
    are in needed ones: with them names that nobody knows yet stay short.

    Args:
        tokenizer: A byte-pair tokenizer that writes unknown characters as bytes.
        needed: Tokens that are kept whatever the size.
        common: Counts by token; the most frequent are kept first.
        size: Number of tokens to fill the vocabulary up to.
        config: The model's configuration.

    Raises:
        InvalidInputError: The tokenizer is of another kind.
    """
    document = json.loads(tokenizer.to_str())
    pieces = BytePairs.of(document)
    settled = {*needed, *pieces.always, *_own_tokens(document, config or {}, pieces)}
    settled |= count_tokens(tokenizer, map(chr, range(128))).keys()
    for token in sorted(settled):
        settled |= pieces.parts(token)
    alphabet = {char for token in settled for char in pieces.text(token)}
    wishes = [token for token, _ in Counter(dict(common or {})).most_common()]
    for token in (*wishes, *pieces.by_rank(alphabet)):
        if len(settled) >= size:
            break
        if token not in settled and pieces.is_reachable(token):
            added = {token, *pieces.parts(token)} - settled
            if len(settled) + len(added) <= size:
                settled |= added
    kept = np.array(sorted(settled), dtype=np.int32)
    return TrimmedVocabulary(kept=kept, tokenizer=_rewrite(document, pieces, kept))


def _own_tokens(
    document: Mapping[str, Any], config: Mapping[str, Any], pieces: BytePairs
) -> set[int]:
    """Return the special tokens of the configuration, the post-processor and the model."""
    tokens: set[int] = set()
    for name in _TOKEN_IDS:
        value = config.get(name)
        tokens.update(value if isinstance(value, list) else [] if value is None else [value])
    known = set(pieces.ids.values())
    tokens &= known  # some configurations name ids that no tokenizer has
    for special in _special_tokens(document["post_processor"]):
        tokens.update(special["ids"])
    if (unknown := document["model"].get("unk_token")) is not None:
        tokens.add(pieces.ids[unknown])
    return tokens


def _special_tokens(processor: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the entries of a post-processor that hold token ids."""
    if processor is None or processor["type"] == "ByteLevel":
        return []
    if processor["type"] == "Sequence":
        return [each for part in processor["processors"] for each in _special_tokens(part)]
    if processor["type"] == "TemplateProcessing":
        return list(processor["special_tokens"].values())
    raise InvalidInputError(
        f"tokenizer: post-processor {processor['type']}; a vocabulary is trimmed with "
        "TemplateProcessing and ByteLevel only"
    )


def _rewrite(document: dict[str, Any], pieces: BytePairs, kept: NDArray[np.int32]) -> Tokenizer:
    """Return the tokenizer with the kept tokens alone, under their new ids."""
    new_ids = {old: new for new, old in enumerate(kept.tolist())}
    model = document["model"]
    model["vocab"] = {text: new_ids[old] for text, old in model["vocab"].items() if old in new_ids}
    texts = model["vocab"]
    model["merges"] = [
        pair
        for pair in pieces.ranks
        if pair[0] in texts and pair[1] in texts and "".join(pair) in texts
    ]
    document["added_tokens"] = [
        {**token, "id": new_ids[token["id"]]}
        for token in document["added_tokens"]
        if token["id"] in new_ids
    ]
    for special in _special_tokens(document["post_processor"]):
        special["ids"] = [new_ids[old] for old in special["ids"]]
    tokenizer = Tokenizer.from_str(to_json(document))
    wrong = [
        text
        for text, old in pieces.ids.items()
        if old in new_ids and tokenizer.token_to_id(text) != new_ids[old]
    ]
    if wrong:
        raise InvalidInputError(
            f"tokenizer: the ids of {len(wrong)} added tokens such as {wrong[0]!r} lie between "
            "others; such a vocabulary is not trimmed"
        )
    return tokenizer
