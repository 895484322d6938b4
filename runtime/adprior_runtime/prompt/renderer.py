"""From a user context to token ids: the prompt template and the renderer that applies it.

The template is data of the artefact. A section is a list of pieces such as ``"{category}; "``;
a piece is left out when a field of it is absent. A prompt is::

    head, one profile section per key, one event section per event, tail

``{days_since_previous}`` is exact and 0 within a day; ``{gap}`` is coarse (see `coarse_days`) and
absent within a day, as both are where nothing came before.

Each literal and each value is tokenised by itself and the ids are joined. So dropping an event
drops exactly its tokens, an advertiser's name has the same tokens in a history, in the
catalogue's trie and in a forecast, and no value becomes a special token (`value_tokenizer`).
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from adprior_runtime.errors import ArtefactError, InvalidReason, InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.value_tokenizer import ValueTokenizer
from adprior_runtime.text.json_text import to_json
from adprior_runtime.text.spelling import even_out, fold_key

MAX_FIELD_CHARS: Final = 64
"""A template that says nothing else cuts values after so many characters."""
_COARSE_FROM: Final = 10
_COARSE_RATIO: Final = 1.5

_EVENT_FIELDS: Final = frozenset(
    {"day", "days_since_previous", "gap", "action", "advertiser", "category", "text", "end"}
)
_SECTION_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "head": frozenset({"end"}),
    "profile": frozenset({"key", "value", "pair", "end"}),
    "event": _EVENT_FIELDS,
    "tail": frozenset({"day", "days_since_previous", "gap", "end"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """How a user context becomes a prompt; stored as ``prompt.json``.

    Attributes:
        terminator: The token that ends an advertiser's name; ``{end}`` in a piece stands for it.
        max_prompt_tokens: The prompt's budget; the oldest events are dropped to fit it.
        max_field_chars: Longer values are cut.
        head, profile, event, tail: The sections' pieces: text and fields, each tokenised by itself.
            A profile's ``{pair}`` is key=value as one text.
        denied_profile_keys: Profile keys (protected attributes, say) that never reach the prompt,
            in whatever case, width and white space they come (see `spelling.fold_key`).
    """

    terminator: str
    max_prompt_tokens: int
    head: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    max_field_chars: int = MAX_FIELD_CHARS
    denied_profile_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse pieces with unknown fields, so that a misspelt one is met before training."""
        if not isinstance(self.terminator, str):
            raise ArtefactError(
                f"prompt template: terminator is {self.terminator!r}, expected text"
            )
        for name in (*_SECTION_FIELDS, "denied_profile_keys"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, str) for v in values):
                raise ArtefactError(
                    f"prompt template: {name} is {values!r}, expected a list of texts"
                )
        for name, allowed in _SECTION_FIELDS.items():
            for piece in getattr(self, name):
                for _, key, spec, conversion in string.Formatter().parse(piece):
                    if key is not None and (key not in allowed or spec or conversion):
                        raise ArtefactError(
                            f"prompt template: {name} piece {piece!r} has the field {{{key}}}; "
                            f"known there: {', '.join(sorted(allowed))}"
                        )
        if min(self.max_prompt_tokens, self.max_field_chars) < 1:
            raise ArtefactError("prompt template: budgets must be at least 1")

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
        """Refuse a model whose positions do not hold the longest prompt and name.

        Raises:
            ArtefactError: Saying what is needed and what there is.
        """
        needed = self.max_prompt_tokens + longest_name_tokens
        if needed > max_positions:
            raise ArtefactError(
                f"prompt template: max_prompt_tokens {self.max_prompt_tokens} and a name of "
                f"{longest_name_tokens} tokens need {needed} positions, the model has "
                f"{max_positions}"
            )

    def denied_keys(self, keys: Iterable[str]) -> list[str]:
        """Return those of a profile's keys that never reach the prompt, however they are spelt."""
        denied = set(map(fold_key, self.denied_profile_keys))
        return [key for key in keys if denied and fold_key(key) in denied]

    def shown(self, value: str) -> str:
        """Return what of a value is tokenised: evened out, and no longer than the template says."""
        # What looks alike is tokenised alike.
        return even_out(value)[: self.max_field_chars]

    def to_json(self) -> str:
        """Return the template as the text of ``prompt.json``."""
        return to_json(asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        token_ids: At most ``max_prompt_tokens`` of them.
        advertiser_spans: Where each advertiser of the history stands, terminator included:
            [start, stop) in ``token_ids``. Training puts loss there too.
        advertiser_rows: The event of the context's history that each of these spans belongs to.
        dropped_events: The oldest events left out to fit the budget.
    """

    token_ids: list[int]
    advertiser_spans: list[tuple[int, int]] = field(default_factory=list)
    advertiser_rows: list[int] = field(default_factory=list)
    dropped_events: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A literal's ids followed by a field's name."""

    literal_ids: tuple[int, ...]
    field: str | None


class PromptRenderer:
    """Renders prompts and canonical advertiser names with one template and one tokenizer.

    Args:
        template: The artefact's.
        tokenizer: Likewise.
        cached_values: Remember the tokens of so many values: training renders the same ones again
            and again. Serving remembers nothing of its requests.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: Tokenizer, *, cached_values: int = 0
    ) -> None:
        self.template = template
        self._encode = lru_cache(cached_values)(self._tokenize) if cached_values else self._tokenize
        end_id = tokenizer.token_to_id(template.terminator)
        if end_id is None:
            raise ArtefactError(
                f"prompt template: terminator {template.terminator!r} is not in the tokenizer"
            )
        self.end_id: int = end_id
        # Literals of the template may spell special tokens; values of a request never.
        tokenizer.encode_special_tokens = False
        self._sections = {
            name: [_compile(piece, tokenizer) for piece in getattr(template, name)]
            for name in _SECTION_FIELDS
        }
        self._values = ValueTokenizer(tokenizer, end_id)
        self._denied = frozenset(map(fold_key, template.denied_profile_keys))

    @classmethod
    def load(cls, template_path: Path, tokenizer_path: Path) -> PromptRenderer:
        """Load ``prompt.json`` and ``tokenizer.json``."""
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtefactError(f"{tokenizer_path}: not a tokenizer: {error}") from error
        return cls(PromptTemplate.load(template_path), tokenizer)

    @property
    def head_ids(self) -> list[int]:
        """The tokens that every prompt begins with."""
        return self._render_section("head", {})[0]

    def name_ids(self, name: str) -> list[int]:
        """Return an advertiser's canonical tokens, terminator included."""
        return [*self._encode(name), self.end_id]

    def denies(self, key: str) -> bool:
        """Tell whether the template keeps a profile key, in any spelling, out of the prompt."""
        return bool(self._denied) and fold_key(key) in self._denied

    def render(self, context: UserContext) -> Prompt:
        """Render a context within the budget, dropping the oldest events.

        Raises:
            InvalidRequestError: The profile alone exceeds the budget.
        """
        start = self.head_ids
        for key, value in context.profile.items():
            if not self.denies(key):
                values = {"key": key, "value": value, "pair": f"{key}={value}"}
                start += self._render_section("profile", values)[0]
        last = context.history[-1].time if context.history else None
        tail = self._render_section("tail", _day_fields(context.as_of, last))[0]
        room = self.template.max_prompt_tokens - len(start) - len(tail)
        if room < 0:
            raise InvalidRequestError(
                f"profile: {len(start)} tokens leave no room in the prompt's budget "
                f"of {self.template.max_prompt_tokens}",
                InvalidReason.OVER_BUDGET,
            )
        events = self._newest_events(context.history, room)
        dropped = len(context.history) - len(events)
        token_ids, spans, rows = list(start), [], []
        for row, (ids, span) in enumerate(reversed(events), start=dropped):
            if span is not None:
                spans.append((len(token_ids) + span[0], len(token_ids) + span[1]))
                rows.append(row)
            token_ids.extend(ids)
        return Prompt(
            token_ids=token_ids + tail,
            advertiser_spans=spans,
            advertiser_rows=rows,
            dropped_events=dropped,
        )

    def _newest_events(
        self, history: Sequence[Event], room: int
    ) -> list[tuple[list[int], tuple[int, int] | None]]:
        """Render events, newest first, until the next would not fit."""
        rendered = []
        for index in range(len(history) - 1, -1, -1):
            event = history[index]
            values = _day_fields(event.time, history[index - 1].time if index else None)
            values["action"] = event.action
            for name in ("advertiser", "category", "text"):
                if even_out(value := getattr(event, name) or ""):
                    values[name] = value
            ids, span = self._render_section("event", values)
            room -= len(ids)
            if room < 0:
                break
            rendered.append((ids, span))
        return rendered

    def _render_section(
        self, name: str, values: Mapping[str, str]
    ) -> tuple[list[int], tuple[int, int] | None]:
        ids: list[int] = []
        span = None
        for parts in self._sections[name]:
            if any(p.field not in values for p in parts if p.field not in (None, "end")):
                continue
            for part in parts:
                ids.extend(part.literal_ids)
                if part.field == "end":
                    ids.append(self.end_id)
                    if span is not None and span[1] == len(ids) - 1:
                        span = (span[0], len(ids))
                elif part.field is not None:
                    start = len(ids)
                    ids.extend(self._encode(values[part.field]))
                    if part.field == "advertiser":
                        span = (start, len(ids))
        return ids, span

    def _tokenize(self, value: str) -> tuple[int, ...]:
        return self._values.encode(self.template.shown(value))


def _compile(piece: str, tokenizer: Tokenizer) -> list[_Part]:
    return [
        _Part(tuple(tokenizer.encode(literal, add_special_tokens=False).ids), key)
        for literal, key, _, _ in string.Formatter().parse(piece)
    ]


def _day_fields(moment: datetime, previous: datetime | None) -> dict[str, str]:
    values = {"day": moment.date().isoformat()}
    if previous is not None:
        days = (moment.date() - previous.date()).days
        values["days_since_previous"] = str(days)
        if days > 0:
            values["gap"] = coarse_days(days)
    return values


def coarse_days(days: int) -> str:
    """Return a number of days of at least 0, exact below ten, then the last of 10, 15, 22.5, 33.75.

    And so on, each 1.5 times the one before, so that a model sees few different values, each often.
    Fractions are left out when they are written.
    """
    if days < _COARSE_FROM:
        return str(days)
    steps = math.floor(math.log(days / _COARSE_FROM) / math.log(_COARSE_RATIO) + 1e-9)
    return str(math.floor(_COARSE_FROM * _COARSE_RATIO**steps))
