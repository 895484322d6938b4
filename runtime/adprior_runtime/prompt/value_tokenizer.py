"""Tokenises the values of a prompt, so that none of them becomes a special token."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from tokenizers import Tokenizer

from adprior_runtime.errors import ArtefactError
from adprior_runtime.text.normalisation import normalise_text

_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")
"""A token for one byte, in tokenizers that write unknown characters as bytes."""
_UNKNOWN_PROBE: Final = "\U00012000 \U00013000"
"""Cuneiform and a hieroglyph: tokenised as bytes, or as the unknown token."""


class ValueTokenizer:
    """Tokenises values of users and catalogues, which never become special tokens.

    A checkpoint's tokenizer finds its special and its added tokens in any text, so a value that
    spells ``<bos>`` would become that token. This one does not look for them. A vocabulary may
    still contain one (as a Unigram piece or a whole word): the text is then cut in the middle of
    it, and the halves are tokenised separately. The terminator is kept out in the same way.

    Args:
        tokenizer: The bundle's tokenizer; it is not changed.
        end_id: The terminator, which may be an ordinary token of the vocabulary.

    Raises:
        ArtefactError: The tokenizer cannot write one of its own added tokens as text, or fails on
            an unknown character.
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int) -> None:
        # The same model without the added tokens: they belong to the Tokenizer object.
        self._tokenizer = Tokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            self._tokenizer.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._tokenizer.pre_tokenizer = tokenizer.pre_tokenizer
        added = tokenizer.get_added_tokens_decoder()
        byte_tokens = {key for key, token in added.items() if _BYTE.fullmatch(token.content)}
        self._kept_out = (frozenset(added) - byte_tokens - self._unknown_ids()) | {end_id}
        self._require_spellable({key: token.content for key, token in added.items()}, end_id)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text that is already normalised."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._kept_out.isdisjoint(ids):
            return tuple(ids)
        cuts = {
            (start + stop) // 2
            for token, (start, stop) in zip(ids, encoding.offsets, strict=True)
            if token in self._kept_out and stop - start > 1
        }
        if not cuts:  # a single character cannot be cut: it is dropped
            return tuple(token for token in ids if token not in self._kept_out)
        places = [0, *sorted(cuts), len(text)]
        pieces = (text[start:stop] for start, stop in pairwise(places))
        return tuple(token for piece in pieces for token in self.encode(piece))

    def _unknown_ids(self) -> frozenset[int]:
        """Return the tokens that stand for unknown text; values may contain them."""
        try:
            ids = set(self._tokenizer.encode(_UNKNOWN_PROBE, add_special_tokens=False).ids)
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtefactError(
                f"tokenizer: it fails on a character that it does not know: {error}"
            ) from error
        name = getattr(self._tokenizer.model, "unk_token", None)
        if name is not None and (unknown := self._tokenizer.token_to_id(name)) is not None:
            ids.add(unknown)
        return frozenset(ids)

    def _require_spellable(self, added: dict[int, str], end_id: int) -> None:
        for key, content in added.items():
            text = normalise_text(content)
            if key != end_id and key in self._kept_out and text and not self.encode(text):
                raise ArtefactError(
                    f"tokenizer: its added token {content!r} is needed to write ordinary text; "
                    "remove it from the added tokens"
                )
