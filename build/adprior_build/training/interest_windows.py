"""Training windows with an interest as target: a prompt as served, the tail, a category."""

from __future__ import annotations

from datetime import UTC, datetime, time

import numpy as np

from adprior_build.data.event_log import UserHistory
from adprior_build.training.windows import Window
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import in_words


def interest_window(renderer: PromptRenderer, user: UserHistory, row: int) -> Window:
    """Return the window that predicts an event's category from all earlier days.

    Args:
        renderer: Renders the prompt; its template has an ``interest_tail``.
        user: The user.
        row: The place in ``user.events`` of an event with a category.

    Raises:
        InvalidRequestError: The profile alone exceeds the prompt's budget.
    """
    target = user.events[row]
    name = in_words(target.category or "")
    day = datetime.combine(target.time.date(), time(), tzinfo=UTC)
    history = [event for event in user.events if event.time < day]
    prompt = renderer.render(UserContext(profile=user.profile, history=history, as_of=day))
    before = [*prompt.token_ids, *renderer.interest_tail_ids]
    name_ids = renderer.name_ids(name)
    is_new = name not in {in_words(event.category) for event in history if event.category}
    return Window(
        token_ids=np.array([*before, *name_ids], dtype=np.int32),
        targets=np.arange(len(before), len(before) + len(name_ids), dtype=np.int32),
        is_new=np.full(len(name_ids), is_new),
        names=1,
        new_names=int(is_new),
    )
