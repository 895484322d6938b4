"""The tokens of a byte-pair tokenizer, and the shorter tokens that each is joined from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from tokenizers import pre_tokenizers

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json


class BytePairs:
    """The tokens of a byte-pair model, and how they are joined.

    Attributes:
        ids: The id of each token, added ones included.
        ranks: The rank of each merge by its pair; earlier ones have a smaller rank.
        always: Bytes: they are in every vocabulary.
    """

    def __init__(self, document: Mapping[str, Any], always: Iterable[str]) -> None:
        model = document["model"]
        self.ids: dict[str, int] = dict(model["vocab"])
        self.ids |= {token["content"]: token["id"] for token in document["added_tokens"]}
        self._texts = {key: text for text, key in self.ids.items()}
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        self.ranks = {(first, second): rank for rank, (first, second) in enumerate(pairs)}
        self.always = {self.ids[text] for text in always if text in self.ids}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> BytePairs:
        """Read a tokenizer's JSON; refuse kinds whose tokens cannot be cut."""
        model = document["model"]
        if model["type"] != "BPE":
            raise InvalidInputError(
                f"tokenizer: {model['type']}; a vocabulary is trimmed of a byte-pair tokenizer "
                "(BPE) only"
            )
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise InvalidInputError(
                "tokenizer: it marks the beginnings or ends of words in its tokens; such a "
                "vocabulary is not trimmed"
            )
        if model.get("byte_fallback"):
            return cls(document, [f"<0x{byte:02X}>" for byte in range(256)])
        if '"ByteLevel"' in to_json(document["pre_tokenizer"]):
            return cls(document, pre_tokenizers.ByteLevel.alphabet())
        raise InvalidInputError(
            "tokenizer: it has no tokens for bytes, so that a trimmed one could not write every "
            "text; such a vocabulary is not trimmed"
        )

    def text(self, token: int) -> str:
        """Return how a token is spelt."""
        return self._texts[token]

    def parts(self, token: int) -> set[int]:
        """Return the shorter tokens that a token is joined from; none if merges do not make it."""
        steps, symbols = self._join(self._texts[token])
        return steps if len(symbols) == 1 else set()

    def is_reachable(self, token: int) -> bool:
        """Whether merges make the token from its characters."""
        return len(self._join(self._texts[token])[1]) == 1

    def by_rank(self, alphabet: set[str]) -> Iterator[int]:
        """Yield the tokens that consist of these characters, those of the earliest merges first."""
        for first, second in self.ranks:
            if alphabet.issuperset(first) and alphabet.issuperset(second):
                yield self.ids[first + second]

    def _join(self, text: str) -> tuple[set[int], list[str]]:
        """Return all tokens on the way, and the last symbols, as a byte-pair tokenizer makes them.

        What is beside a token in a text does not change how it came about: of the pairs inside it
        the earliest is joined first, wherever other pairs are joined meanwhile.
        """
        symbols = list(text)
        steps = {self.ids[char] for char in symbols if char in self.ids}
        while len(symbols) > 1:
            never = len(self.ranks)
            rank, place = min(
                (self.ranks.get(pair, never), place) for place, pair in enumerate(pairwise(symbols))
            )
            if rank == never:
                break
            symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
            steps.add(self.ids[symbols[place]])
        return steps, symbols
