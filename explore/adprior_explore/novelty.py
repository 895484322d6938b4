"""Which advertisers are new to a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adprior_client import Advertiser
from adprior_runtime.text.normalisation import normalise_text


def known_advertisers(user: Mapping[str, Any]) -> frozenset[str]:
    """Return the advertisers that a context's events name, as the model reads them."""
    names = (event.get("advertiser") for event in user.get("history", ()))
    return frozenset(normalise_text(name) for name in names if name)


def mark_new(advertisers: Iterable[Advertiser], user: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return JSON objects of advertisers; ``is_new`` if no event of the user names them."""
    known = known_advertisers(user)
    return [
        item.to_json() | {"is_new": normalise_text(item.name) not in known} for item in advertisers
    ]
