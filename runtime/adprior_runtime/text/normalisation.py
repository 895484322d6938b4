"""Unicode normalisation of names, other values and profile keys: equal-looking texts become equal.

Training, serving, catalogues and evaluation use it. So an advertiser is the same, however a source
system writes its name.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_CONTROLS: Final = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_FORMATS: Final = (
    r"\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_BLANKS: Final = r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
"""Letters and marks without a glyph, such as fillers and variation selectors."""
_INVISIBLE: Final = re.compile(f"[{_CONTROLS}{_FORMATS}{_BLANKS}]")
"""Characters that are removed; white space is not among them. They are listed here because each
version of Python has its own version of Unicode. A model must read the same text in training and in
serving, also with different versions of Python."""


def normalise_text(text: str) -> str:
    """Return a text in NFC, without invisible characters, with single plain spaces.

    Every value is tokenised in this form, also advertisers' names. Case and width do not change.
    """
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def fold_key(key: str) -> str:
    """Return a key for comparison, without differences of case, width (NFKC) and white space."""
    folded = _squeeze(_compatible(_squeeze(key)))
    return _compatible(_squeeze(_compatible(folded.casefold())))


def _squeeze(text: str) -> str:
    return "".join(_INVISIBLE.sub("", text).split())


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
