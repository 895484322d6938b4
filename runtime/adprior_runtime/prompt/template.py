"""The prompt template: the pieces of a user context that a prompt shows, and the token budget.

The template is a file of the bundle. A section is a list of pieces such as ``"{category}; "``. A
piece is left out if one of its fields is absent. A prompt is::

    head, one profile section per key, earlier sections, one event section per event, tail

If the budget drops events, ``earlier`` shows their advertisers, one section for each, those with
most dropped events first, as far as ``max_earlier_tokens`` and half of the history's room allow.
``{times}`` is there the number of these events, coarse, and absent for one event.

In a bundle with interests, an interest's name follows the same prompt and ``interest_tail``.

``{days_since_previous}`` is exact and 0 within a day; ``{gap}`` is coarse (see `coarse_number`) and
absent within a day. Both are absent before the first event. ``{category_words}`` is the category in
lower case with spaces for underscores: ``PET_FOOD`` is ``pet food``. ``{times}`` says how many
earlier events of the history have the same advertiser, coarse too; it is absent when none has.

An event that fills no piece but those of its day, or that lacks one of ``event_needs``, is left
out, and days count from the last event that is shown.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from adprior_runtime.errors import ArtefactError
from adprior_runtime.text.json_text import to_json
from adprior_runtime.text.normalisation import fold_key, normalise_text

_COARSE_FROM: Final = 10
_COARSE_RATIO: Final = 1.5
MAX_FIELD_CHARS: Final = 64
"""Default of a template's ``max_field_chars``."""

SECTION_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "head": frozenset({"end"}),
    "profile": frozenset({"key", "value", "pair", "end"}),
    "earlier": frozenset({"advertiser", "times"}),
    "event": frozenset(
        {
            "day",
            "days_since_previous",
            "gap",
            "action",
            "advertiser",
            "times",
            "category",
            "category_words",
            "text",
            "end",
        }
    ),
    "tail": frozenset({"day", "days_since_previous", "gap", "end"}),
    "interest_tail": frozenset({"end"}),
}
"""The fields that the pieces of each section may have."""

_EVENT_CONTENT: Final[Mapping[str, str]] = {
    "action": "action",
    "advertiser": "advertiser",
    "times": "advertiser",
    "category": "category",
    "category_words": "category",
    "text": "text",
}
"""The part of an event that each field shows. The other fields show its day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """The pieces and limits of a prompt; stored as ``prompt.json``.

    Attributes:
        terminator: The token that ends an advertiser's name; ``{end}`` in a piece stands for it.
        max_prompt_tokens: The prompt's token budget; the oldest events are dropped to fit it.
        max_earlier_tokens: The part of the budget that the earlier sections may have, if events are
            dropped; 0 for none.
        max_field_chars: Longer values are cut to this many characters.
        head, profile, earlier, event, tail: The sections' pieces: text and fields, each tokenised
            by itself. A profile's ``{pair}`` is key=value as one text.
        interest_tail: Pieces between a prompt and an interest's name, the same for every user: the
            model reads a prompt once, and then continues it with an advertiser or an interest.
        event_needs: Parts of an event (``advertiser``, ``category``, ``text``) without which the
            event is not shown.
        denied_profile_keys: Profile keys (protected attributes, say) that never reach the prompt,
            whatever their case, width and white space (see `normalisation.fold_key`).
    """

    terminator: str
    max_prompt_tokens: int
    head: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    interest_tail: tuple[str, ...] = ()
    max_earlier_tokens: int = 0
    max_field_chars: int = MAX_FIELD_CHARS
    event_needs: tuple[str, ...] = ()
    denied_profile_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse pieces with unknown fields, so that a misspelt field is found before training."""
        if not isinstance(self.terminator, str):
            raise ArtefactError(
                f"prompt template: terminator is {self.terminator!r}, expected text"
            )
        for name in (*SECTION_FIELDS, "event_needs", "denied_profile_keys"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, str) for v in values):
                raise ArtefactError(
                    f"prompt template: {name} is {values!r}, expected a list of texts"
                )
        if unknown := sorted(set(self.event_needs) - set(_EVENT_CONTENT.values())):
            raise ArtefactError(
                f"prompt template: event_needs has {', '.join(unknown)}; known: "
                f"{', '.join(sorted(set(_EVENT_CONTENT.values())))}"
            )
        for name, allowed in SECTION_FIELDS.items():
            for piece in getattr(self, name):
                for _, key, spec, conversion in string.Formatter().parse(piece):
                    if key is not None and (key not in allowed or spec or conversion):
                        raise ArtefactError(
                            f"prompt template: {name} piece {piece!r} has the field {{{key}}}; "
                            f"known there: {', '.join(sorted(allowed))}"
                        )
        if min(self.max_prompt_tokens, self.max_field_chars) < 1:
            raise ArtefactError("prompt template: budgets must be at least 1")
        if bool(self.earlier) != (0 < self.max_earlier_tokens < self.max_prompt_tokens):
            raise ArtefactError(
                f"prompt template: max_earlier_tokens is {self.max_earlier_tokens}, expected a "
                f"part of max_prompt_tokens {self.max_prompt_tokens} with earlier pieces, else 0"
            )
        named = [field for field in self.event_fields() if field in ("advertiser", "times")]
        if named[:1] == ["times"]:
            raise ArtefactError(
                "prompt template: an event's {times} comes before its {advertiser} and would tell "
                "whether the advertiser is new; put it after"
            )

    def event_fields(self) -> list[str]:
        """Return the fields of the event section, in order."""
        parts = (part for piece in self.event for part in string.Formatter().parse(piece))
        return [key for _, key, _, _ in parts if key is not None]

    def event_contents(self) -> list[frozenset[str]]:
        """Return what of an event each piece shows besides its day; pieces that show none are out.

        An event that fills none of these is left out of the prompt, as if it were not there.
        """
        contents = (
            frozenset(
                _EVENT_CONTENT[key]
                for _, key, _, _ in string.Formatter().parse(piece)
                if key is not None and key in _EVENT_CONTENT
            )
            for piece in self.event
        )
        return [content for content in contents if content]

    @classmethod
    def load(cls, path: Path) -> PromptTemplate:
        """Read a template from JSON; unknown or missing keys are refused."""
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
            known = {item.name for item in fields(cls)}
            if unknown := sorted(set(document) - known):
                raise ArtefactError(f"{path}: unknown keys {unknown}; known: {sorted(known)}")
            needed = [item.name for item in fields(cls) if item.default is MISSING]
            if missing := [name for name in needed if name not in document]:
                raise ArtefactError(f"{path}: {', '.join(missing)} missing")
            for key, value in document.items():
                document[key] = tuple(value) if isinstance(value, list) else value
            return cls(**document)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"{path}: not a prompt template: {error}") from error

    def require_positions(self, max_positions: int, longest_name_tokens: int) -> None:
        """Raise `ArtefactError` if the longest prompt and name exceed the model's positions."""
        needed = self.max_prompt_tokens + longest_name_tokens
        if needed > max_positions:
            raise ArtefactError(
                f"prompt template: max_prompt_tokens {self.max_prompt_tokens} and a name of "
                f"{longest_name_tokens} tokens need {needed} positions, the model has "
                f"{max_positions}"
            )

    def denied_keys(self, keys: Iterable[str]) -> list[str]:
        """Return the profile keys, in any spelling, that never reach the prompt."""
        denied = set(map(fold_key, self.denied_profile_keys))
        return [key for key in keys if denied and fold_key(key) in denied]

    def shown(self, value: str) -> str:
        """Return the text that is tokenised for a value: normalised, then cut."""
        return normalise_text(value)[: self.max_field_chars]

    def to_json(self) -> str:
        """Return the template as the text of ``prompt.json``."""
        return to_json(asdict(self), indent=2, ensure_ascii=False) + "\n"


def day_fields(moment: datetime, previous: datetime | None) -> dict[str, str]:
    """Return the template's fields of an event's day, or of the forecast's.

    Args:
        moment: Time of the event or the forecast.
        previous: Time of the event before it; None if there is none.
    """
    values = {"day": moment.date().isoformat()}
    if previous is not None:
        days = (moment.date() - previous.date()).days
        values["days_since_previous"] = str(days)
        if days > 0:
            values["gap"] = coarse_number(days)
    return values


def in_words(identifier: str) -> str:
    """Return an identifier as words: in lower case, with spaces for underscores.

    Such words are a few tokens that a language model knows; ``PET_FOOD`` is cut into many.
    """
    return identifier.replace("_", " ").lower()


def coarse_number(number: int) -> str:
    """Round a count down, so that a model sees few different values, each of them often.

    Below ten it is exact. From ten on it is 10, 15, 22.5, 33.75 and so on, each 1.5 times the value
    before, written without the fraction.
    """
    if number < _COARSE_FROM:
        return str(number)
    steps = math.floor(math.log(number / _COARSE_FROM) / math.log(_COARSE_RATIO) + 1e-9)
    return str(math.floor(_COARSE_FROM * _COARSE_RATIO**steps))
