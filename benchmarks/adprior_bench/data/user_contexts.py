"""User contexts of an event log's users, as a client sends them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from adprior_build.data.event_log import UserHistory
from adprior_client import Event, User
from adprior_client.user_context import user_to_json
from adprior_runtime.prompt import context


def context_json(user: UserHistory, events: Sequence[context.Event], as_of: datetime) -> bytes:
    """Return a user context: the user's profile, and these events, before ``as_of``."""
    history = [
        Event(
            time=event.time,
            action=event.action,
            advertiser=event.advertiser,
            category=event.category,
            text=event.text,
        )
        for event in events
    ]
    return user_to_json(User(profile=dict(user.profile), history=history, as_of=as_of))
