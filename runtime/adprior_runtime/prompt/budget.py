"""Cuts a user's history to the prompt's token budget: the oldest events are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from adprior_runtime.errors import InvalidReason, InvalidRequestError

_Event = TypeVar("_Event")


def room_for_events(max_prompt_tokens: int, *, start: int, tail: int) -> int:
    """Return how many tokens the history may have.

    Args:
        max_prompt_tokens: The template's budget.
        start: Tokens before the history: head and profile.
        tail: Tokens after the history.

    Raises:
        InvalidRequestError: The profile alone exceeds the budget.
    """
    room = max_prompt_tokens - start - tail
    if room < 0:
        raise InvalidRequestError(
            f"profile: {start} tokens leave no room in the prompt's budget of {max_prompt_tokens}",
            InvalidReason.OVER_BUDGET,
        )
    return room


def newest_events(
    count: int,
    room: int,
    render: Callable[[int], _Event],
    tokens_of: Callable[[_Event], Sequence[int]],
) -> list[_Event]:
    """Render the newest of ``count`` events that fit in ``room`` tokens; return them oldest first.

    ``render`` takes an event's index in the history.
    """
    kept = []
    for index in range(count - 1, -1, -1):
        event = render(index)
        room -= len(tokens_of(event))
        if room < 0:
            break
        kept.append(event)
    return kept[::-1]
