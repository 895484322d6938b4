"""Proposes a column map from the names of columns and from what they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.inspection.column_facts import TEXT, TIMES, WHOLE, ColumnFacts
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

_NAMES: Final = {
    "user": "user userid uid customer customerid cust household member visitor subscriber account "
    "client shopper buyer patient cardholder person device cookie guest profile who",
    "time": "time timestamp ts datetime eventtime date day when at created occurred purchased",
    "advertiser": "advertiser advertisername brand brandname merchant seller vendor sponsor "
    "retailer shop store company manufacturer supplier campaign publisher domain",
    "action": "action actiontype event eventtype eventname activity verb interaction kind type",
    "category": "category categoryname cat categorycode department vertical genre topic section "
    "segment producttype",
    "text": "title producttitle producttext itemtitle query search searchterm keyword description "
    "headline text name productname",
    "item": "item itemid product productid sku asin article articleid ad adid creative listing",
    "event_id": "eventid transactionid orderid receipt receiptid uuid impressionid clickid",
}
"""Names of columns by role, without case and punctuation, the most telling first."""
_HOLDS: Final = {
    "user": {TEXT, WHOLE},
    "time": TIMES,
    "advertiser": {TEXT, WHOLE},
    "action": {TEXT},
    "category": {TEXT},
    "text": {TEXT},
    "item": {TEXT, WHOLE},
    "event_id": {TEXT, WHOLE},
}
"""For each role, the kinds of values that its column may hold."""
_NEEDED: Final = ("user", "time", "advertiser")
_MOST_ACTIONS: Final = 50
_LEAST_OF_IDS: Final = 0.9
"""Columns of ids (of events; of users in profiles) have more different values, as a share of the
rows."""
_LARGEST_OF_KEYS: Final = 0.5
_FEW_VALUES: Final = 100
_LARGEST_OF_FEW: Final = 0.9
"""In a file of few users, a column with more different values, as a share of the rows, may hold
e-mails or ids; a column of at most `_HANDFUL` values may not be judged by that."""
_HANDFUL: Final = 3
_PANDAS_INDEX: Final = "__index_level_"
_PURCHASE_WORDS: Final = {"price", "order", "purchase", "purchased", "quantity", "basket", "amount"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A column map, and what it was made from.

    Attributes:
        columns: The map; without profiles if none of their columns is an attribute, because a map
            that names no keys shows all columns.
        guessed: The keys that no column's name suggested.
        left_out: The profiles' columns that are no attributes.
        profile_user: The profiles' column of users; None without profiles.
    """

    columns: ColumnMap
    guessed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    profile_user: str | None = None

    def to_toml(self) -> str:
        """Return the text of the column map; `ColumnMap.load` reads it."""
        lines = ["# Proposed by adprior inspect: check each line.", "[events]"]
        lines += _lines(self.columns.events, EventColumns, self.guessed)
        if self.columns.profiles is not None:
            lines += ["", "[profiles]", *_lines(self.columns.profiles, ProfileColumns, ())]
        return "\n".join(lines) + "\n"


def propose_columns(
    events: Sequence[ColumnFacts], profiles: Sequence[ColumnFacts] | None, path: Path
) -> Proposal:
    """Propose a column map.

    Args:
        events: The log's columns.
        profiles: The profiles' columns; None without profiles.
        path: The log, for errors.

    Raises:
        InvalidInputError: No column can be the user, the time or the advertiser.
    """
    roles: dict[str, str] = {}
    guessed = []
    for role in _NAMES:
        free = [facts for facts in events if facts.name not in roles.values()]
        found = _best(role, free)
        if found is None and role == "user" and profiles is not None:
            found = _joined(free, profiles)
        if found is None and role in _NEEDED:
            found = _guess(role, free)
            guessed += [role] if found else []
        if found is not None:
            roles[role] = found.name
    if missing := [role for role in _NEEDED if role not in roles]:
        iso = " (times are ISO 8601, such as 2024-05-31, or numbers)" if "time" in missing else ""
        raise InvalidInputError(
            f"{path}: no column looks like {' or '.join(missing)}{iso}; write a column map by hand "
            "(docs/training.md) and give it as --columns"
        )
    time = next(facts for facts in events if facts.name == roles["time"])
    extra = (
        {} if "action" in roles or not _is_of_purchases(events) else {"default_action": "purchase"}
    )
    unit = None if time.holds in TIMES else time.unit
    log = EventColumns(**roles, **extra, time_unit=unit)
    if profiles is None:
        return Proposal(columns=ColumnMap(events=log), guessed=tuple(guessed))
    people, left_out = _profile_columns(profiles, roles["user"])
    return Proposal(
        columns=ColumnMap(events=log, profiles=people if people.keys else None),
        guessed=tuple(guessed),
        left_out=left_out,
        profile_user=people.user,
    )


def _best(role: str, columns: Sequence[ColumnFacts]) -> ColumnFacts | None:
    """Return the column whose name suggests a role most, if any."""
    scored = [(score, facts) for facts in columns if (score := _score(role, facts))]
    return max(scored, key=lambda each: each[0])[1] if scored else None


def _joined(events: Sequence[ColumnFacts], profiles: Sequence[ColumnFacts]) -> ColumnFacts | None:
    """Return the only column whose name both files have, if profiles can be told apart by it."""
    ids = {
        facts.name
        for facts in profiles
        if _may_be("user", facts) and facts.share_distinct >= _LEAST_OF_IDS
    }
    shared = [facts for facts in events if facts.name in ids and _may_be("user", facts)]
    return shared[0] if len(shared) == 1 else None


def _score(role: str, facts: ColumnFacts) -> float:
    """Return how much a column's name suggests a role; 0 if not at all, or for other values."""
    if not _may_be(role, facts):
        return 0.0
    names, words = _NAMES[role].split(), words_of(facts.name)
    joined = "".join(words)
    base = joined.removesuffix("id") or joined
    if joined in names:
        score = 3.0 - names.index(joined) / 100
    elif role == "user" and base in names:
        score = 2.9 - names.index(base) / 100
    elif common := set(words) & set(names):
        score = 1.0 - min(names.index(word) for word in common) / 100
    else:
        return 0.0
    # Names tell a language model something, ids do not.
    return score - (0.5 if role in ("advertiser", "category") and facts.holds == WHOLE else 0.0)


def _may_be(role: str, facts: ColumnFacts) -> bool:
    """Tell whether a column's values can have a role."""
    if role == "time":
        return facts.holds in TIMES or facts.unit is not None
    if facts.holds not in _HOLDS[role] or facts.name.startswith(_PANDAS_INDEX):
        return False
    if role == "action":
        return (facts.distinct or 0) <= _MOST_ACTIONS
    return role != "event_id" or facts.share_distinct >= _LEAST_OF_IDS


def _guess(role: str, columns: Sequence[ColumnFacts]) -> ColumnFacts | None:
    """Return the column that is most likely by its values alone."""
    able = [facts for facts in columns if _may_be(role, facts)]
    if role == "time":
        return min(able, key=lambda facts: facts.holds not in TIMES, default=None)
    able = [facts for facts in able if (facts.distinct or 0) > 1 and facts.share_distinct <= 0.5]
    if role == "advertiser":
        able = [facts for facts in able if facts.holds == TEXT]
    elif with_id := [facts for facts in able if "id" in words_of(facts.name)]:
        able = with_id
    return max(able, key=lambda facts: facts.distinct or 0, default=None)


def _profile_columns(
    profiles: Sequence[ColumnFacts], user: str
) -> tuple[ProfileColumns, tuple[str, ...]]:
    """Return the map of the profiles, and the columns that are no attributes."""
    same = next((facts for facts in profiles if facts.name == user), None)
    found = same or _best("user", profiles) or _guess("user", profiles)
    if found is None:
        names = ", ".join(facts.name for facts in profiles)
        raise InvalidInputError(
            f"profiles: no column looks like user; found: {names}; write a column map by hand "
            "(docs/training.md) and give it as --columns"
        )
    others = [facts for facts in profiles if facts is not found]
    keys = tuple(facts.name for facts in others if _is_attribute(facts))
    left_out = tuple(facts.name for facts in others if facts.name not in keys)
    return ProfileColumns(user=found.name, keys=keys), left_out


def _is_attribute(facts: ColumnFacts) -> bool:
    """Tell whether a profile's column says something that several users share."""
    if facts.distinct is None or facts.name.startswith(_PANDAS_INDEX):
        return False
    if facts.distinct <= _HANDFUL or facts.share_distinct <= _LARGEST_OF_KEYS:
        return True
    return facts.distinct <= _FEW_VALUES and facts.share_distinct <= _LARGEST_OF_FEW


def _is_of_purchases(events: Sequence[ColumnFacts]) -> bool:
    return any(_PURCHASE_WORDS & set(words_of(facts.name)) for facts in events)


def words_of(name: str) -> list[str]:
    """Return the words of a name, in lower case: ``userId`` and ``USER-ID`` are user, id."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+|\d+", spaced)]


def _lines(columns: Any, kind: Any, guessed: Sequence[str]) -> list[str]:
    """Return the TOML lines of a table, keys with their defaults left out."""
    lines = []
    for name, item in kind.__dataclass_fields__.items():
        value = getattr(columns, name)
        if value == item.default or value in (None, ()):
            continue
        shown = to_json(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        note = "  # a guess: no column's name says so" if name in guessed else ""
        lines.append(f"{name} = {shown}{note}")
    return lines
